/* What a cell does with its product: one vector of units at a time, for a few rows of the batch, forward and backward.
 *
 * Include after vec.h, once for each of its inclusions. `tile` holds the product of the rows' states with the recurrent
 * weights (forward: one vector a gate; backward: the cotangent of the output that comes from the next step), as panels.h
 * leaves it. Rows whose sequence has ended or not begun keep their state.
 *
 * Derivatives, with d* for the cotangent of * and a gate's d* that of its argument (Greff et al., "LSTM: A Search Space
 * Odyssey", appendix A; Cho et al. 2014 with the reset gate after the product):
 *
 *     LSTM  do = dh tanh(c) o (1 - o)          dc = dc + dh o (1 - tanh(c)^2) + p_o do
 *           di = dc g i (1 - i)   df = dc c' f (1 - f)   dg = dc i (1 - g^2)   dc' = dc f + p_i di + p_f df
 *     GRU   dz = dh (h' - n) z (1 - z)   dn = dh (1 - z)(1 - n^2)   dr = dn (W_hn h' + b_hn) r (1 - r)   dh' = dh z
 *     RNN   dz = dh (1 - h^2), or dh where h > 0
 */

#ifndef MG_CELLS_H
#define MG_CELLS_H

#define mg_forward_step MG_NAME(mg_forward_step)
#define mg_backward_step MG_NAME(mg_backward_step)
#define mg_cell MG_NAME(mg_cell)
#define mg_forward_cells MG_NAME(mg_forward_cells)
#define mg_backward_cells MG_NAME(mg_backward_cells)
#define mg_rnn_forward MG_NAME(mg_rnn_forward)
#define mg_lstm_forward MG_NAME(mg_lstm_forward)
#define mg_gru_forward MG_NAME(mg_gru_forward)
#define mg_rnn_backward MG_NAME(mg_rnn_backward)
#define mg_lstm_backward MG_NAME(mg_lstm_backward)
#define mg_gru_backward MG_NAME(mg_gru_backward)
#define mg_output_forward MG_NAME(mg_output_forward)
#define mg_output_backward MG_NAME(mg_output_backward)

/* Sums over the batch, each a row of padded units: a gate's bias (GRU: W_hn's own is the fourth), then peepholes. */
enum { MG_SUM_BIAS = 0, MG_SUM_PEEPHOLE = 4, MG_SUMS = 7 };

/* With `full`, all W lanes are units; else the first m are. */
#define MG_READ(p) (full ? v_load(p) : v_load_part(p, m, 0))
#define MG_WRITE(p, v) (full ? v_store(p, v) : v_store_part(p, v, m))
#define MG_ENDED(s, row) ((s)->lengths && (s)->t >= (s)->lengths[row])

#endif

/* One step of all rows of a slice. Pointers are to the first row, strides between rows. */
typedef struct {
    ptrdiff_t t, units, padded; /* hidden units, and their number in whole vectors */
    const ptrdiff_t *lengths;
    T *gates; /* the input's part of each gate's argument; then, if `keep`, the gates */
    ptrdiff_t gates_n;
    int keep;
    const T *bias; /* [4, padded]: a gate's; GRU: r, z, input's n, state's n */
    const T *peepholes; /* [3, units] */
    const T *h_in;
    T *h_out; /* with a projection, what will be projected */
    ptrdiff_t h_n;
    const T *c_in;
    T *c_out;
    ptrdiff_t c_n;
    T *y, *cells; /* or NULL */
    ptrdiff_t y_n, cells_n;
} mg_forward_step;

typedef struct {
    ptrdiff_t t, units, padded;
    const ptrdiff_t *lengths;
    const T *gates;
    ptrdiff_t gates_n;
    const T *peepholes;
    const T *c_in, *c_out;
    ptrdiff_t c_n;
    const T *const *h_in; /* the rows' states before the step; GRU */
    const T *y;           /* RNN */
    ptrdiff_t y_n;
    const T *gy, *gcells; /* or NULL */
    ptrdiff_t gy_n, gcells_n;
    T *carry; /* cotangent of the state that takes no product, or NULL: the last step's, GRU's z dh, ended rows' */
    ptrdiff_t carry_n;
    T *dc; /* cotangent of c: in of this step's, out of the last one's */
    T *da; /* cotangents of the gates' arguments, [gates * units] a row */
    T *db; /* the same as the state's product sees them; GRU */
    ptrdiff_t da_n;
    T *sums; /* [MG_SUMS, padded] */
    T *h; /* or NULL: what is projected, o tanh(c) */
    ptrdiff_t h_n;
} mg_backward_step;

/* step: one of the above; u: first unit; tile: the rows' vectors, `width` apart. */
typedef void (*mg_cell)(const void *step, ptrdiff_t u, ptrdiff_t row, int rows, const T *tile, ptrdiff_t width);

MG_INLINE void mg_rnn_forward(const int relu, const int full, const mg_forward_step *s, ptrdiff_t u, ptrdiff_t row,
                              int rows, const T *tile, ptrdiff_t width)
{
    const ptrdiff_t m = s->units - u;
    const V b = v_load(s->bias + u);
    for (; rows > 0; rows--, row++, tile += width) {
        V h, y;
        if (MG_ENDED(s, row)) {
            h = MG_READ(s->h_in + row * s->h_n + u);
            y = K(0);
        } else {
            const V z = v_load(tile) + (MG_READ(s->gates + row * s->gates_n + u) + b);
            y = h = relu ? v_max(z, K(0)) : v_tanh(z);
        }
        MG_WRITE(s->h_out + row * s->h_n + u, h);
        if (s->y)
            MG_WRITE(s->y + row * s->y_n + u, y);
    }
}

MG_INLINE void mg_rnn_backward(const int relu, const int full, const mg_backward_step *s, ptrdiff_t u, ptrdiff_t row,
                               int rows, const T *tile, ptrdiff_t width)
{
    const ptrdiff_t m = s->units - u;
    V sum = K(0);
    for (; rows > 0; rows--, row++, tile += width) {
        V dh = v_load(tile), da = K(0);
        T *carry = s->carry ? s->carry + row * s->carry_n + u : NULL;
        if (MG_ENDED(s, row)) {
            MG_WRITE(carry, MG_READ(carry) + dh);
        } else {
            if (s->gy)
                dh += MG_READ(s->gy + row * s->gy_n + u);
            if (carry) {
                dh += MG_READ(carry);
                MG_WRITE(carry, K(0));
            }
            const V h = MG_READ(s->y + row * s->y_n + u);
            da = relu ? v_select(v_gt(h, K(0)), dh, dh * 0) : dh * ((1 - h) * (1 + h));
            sum += da;
        }
        MG_WRITE(s->da + row * s->da_n + u, da);
    }
    v_store(s->sums + u, v_load(s->sums + u) + sum);
}

MG_INLINE void mg_lstm_forward(const int full, const mg_forward_step *s, ptrdiff_t u, ptrdiff_t row, int rows,
                               const T *tile, ptrdiff_t width)
{
    const ptrdiff_t n = s->units, m = n - u;
    const T *bias = s->bias + u, *p = s->peepholes;
    V b[4];
    for (int k = 0; k < 4; k++)
        b[k] = v_load(bias + k * s->padded);
    for (; rows > 0; rows--, row++, tile += width) {
        const V before = MG_READ(s->c_in + row * s->c_n + u);
        V c = before, h, y = K(0), cell = K(0);
        if (MG_ENDED(s, row)) {
            h = MG_READ(s->h_in + row * s->h_n + u);
        } else {
            T *gates = s->gates + row * s->gates_n + u;
            V i = v_load(tile) + (MG_READ(gates) + b[0]);
            V f = v_load(tile + W) + (MG_READ(gates + n) + b[1]);
            V g = v_load(tile + 2 * W) + (MG_READ(gates + 2 * n) + b[2]);
            V o = v_load(tile + 3 * W) + (MG_READ(gates + 3 * n) + b[3]);
            if (p) {
                i += MG_READ(p + u) * before;
                f += MG_READ(p + n + u) * before;
            }
            i = v_sigmoid(i);
            f = v_sigmoid(f);
            g = v_tanh(g);
            cell = c = f * before + i * g;
            if (p)
                o += MG_READ(p + 2 * n + u) * c;
            o = v_sigmoid(o);
            y = h = o * v_tanh(c);
            if (s->keep) {
                MG_WRITE(gates, i);
                MG_WRITE(gates + n, f);
                MG_WRITE(gates + 2 * n, g);
                MG_WRITE(gates + 3 * n, o);
            }
        }
        MG_WRITE(s->c_out + row * s->c_n + u, c);
        MG_WRITE(s->h_out + row * s->h_n + u, h);
        if (s->y)
            MG_WRITE(s->y + row * s->y_n + u, y);
        if (s->cells)
            MG_WRITE(s->cells + row * s->cells_n + u, cell);
    }
}

MG_INLINE void mg_lstm_backward(const int full, const mg_backward_step *s, ptrdiff_t u, ptrdiff_t row, int rows,
                                const T *tile, ptrdiff_t width)
{
    const ptrdiff_t n = s->units, m = n - u;
    const T *p = s->peepholes;
    V sums[MG_SUMS];
    for (int k = 0; k < MG_SUMS; k++)
        sums[k] = K(0);
    for (; rows > 0; rows--, row++, tile += width) {
        T *da = s->da + row * s->da_n + u;
        T *carry = s->carry ? s->carry + row * s->carry_n + u : NULL;
        V dh = v_load(tile), di = K(0), df = K(0), dg = K(0), d_o = K(0), h = K(0);
        if (MG_ENDED(s, row)) {
            if (carry)
                MG_WRITE(carry, MG_READ(carry) + dh);
        } else {
            const T *gates = s->gates + row * s->gates_n + u;
            const V i = MG_READ(gates), f = MG_READ(gates + n), g = MG_READ(gates + 2 * n), o = MG_READ(gates + 3 * n);
            const V before = MG_READ(s->c_in + row * s->c_n + u), c = MG_READ(s->c_out + row * s->c_n + u);
            const V y = v_tanh(c);
            V dc = MG_READ(s->dc + row * s->c_n + u);
            if (s->gy)
                dh += MG_READ(s->gy + row * s->gy_n + u);
            if (carry) {
                dh += MG_READ(carry);
                MG_WRITE(carry, K(0));
            }
            if (s->gcells)
                dc += MG_READ(s->gcells + row * s->gcells_n + u);
            h = o * y;
            d_o = dh * y * (o * (1 - o));
            dc += dh * o * ((1 - y) * (1 + y));
            if (p)
                dc += MG_READ(p + 2 * n + u) * d_o;
            di = dc * g * (i * (1 - i));
            df = dc * before * (f * (1 - f));
            dg = dc * i * ((1 - g) * (1 + g));
            dc *= f;
            if (p) {
                dc += MG_READ(p + u) * di + MG_READ(p + n + u) * df;
                sums[4] += di * before;
                sums[5] += df * before;
                sums[6] += d_o * c;
            }
            MG_WRITE(s->dc + row * s->c_n + u, dc);
            sums[0] += di;
            sums[1] += df;
            sums[2] += dg;
            sums[3] += d_o;
        }
        MG_WRITE(da, di);
        MG_WRITE(da + n, df);
        MG_WRITE(da + 2 * n, dg);
        MG_WRITE(da + 3 * n, d_o);
        if (s->h)
            MG_WRITE(s->h + row * s->h_n + u, h);
    }
    for (int k = 0; k < (p ? MG_SUMS : MG_SUM_PEEPHOLE); k++) {
        T *sum = s->sums + k * s->padded + u;
        v_store(sum, v_load(sum) + sums[k]);
    }
}

MG_INLINE void mg_gru_forward(const int full, const mg_forward_step *s, ptrdiff_t u, ptrdiff_t row, int rows,
                              const T *tile, ptrdiff_t width)
{
    const ptrdiff_t n_units = s->units, m = n_units - u;
    V b[4];
    for (int k = 0; k < 4; k++)
        b[k] = v_load(s->bias + k * s->padded + u);
    for (; rows > 0; rows--, row++, tile += width) {
        const V before = MG_READ(s->h_in + row * s->h_n + u);
        V h = before, y = K(0);
        if (!MG_ENDED(s, row)) {
            T *gates = s->gates + row * s->gates_n + u;
            const V r = v_sigmoid(v_load(tile) + (MG_READ(gates) + b[0]));
            const V z = v_sigmoid(v_load(tile + W) + (MG_READ(gates + n_units) + b[1]));
            const V state = v_load(tile + 2 * W) + b[3];
            const V n = v_tanh((MG_READ(gates + 2 * n_units) + b[2]) + r * state);
            y = h = (1 - z) * n + z * before;
            if (s->keep) {
                MG_WRITE(gates, r);
                MG_WRITE(gates + n_units, z);
                MG_WRITE(gates + 2 * n_units, n);
                MG_WRITE(gates + 3 * n_units, state);
            }
        }
        MG_WRITE(s->h_out + row * s->h_n + u, h);
        if (s->y)
            MG_WRITE(s->y + row * s->y_n + u, y);
    }
}

MG_INLINE void mg_gru_backward(const int full, const mg_backward_step *s, ptrdiff_t u, ptrdiff_t row, int rows,
                               const T *tile, ptrdiff_t width)
{
    const ptrdiff_t n_units = s->units, m = n_units - u;
    V sums[4];
    for (int k = 0; k < 4; k++)
        sums[k] = K(0);
    for (; rows > 0; rows--, row++, tile += width) {
        T *da = s->da + row * s->da_n + u, *db = s->db + row * s->da_n + u;
        T *carry = s->carry + row * s->carry_n + u;
        V dh = v_load(tile) + MG_READ(carry), dr = K(0), dz = K(0), dn = K(0), dstate = K(0);
        if (!MG_ENDED(s, row)) {
            const T *gates = s->gates + row * s->gates_n + u;
            const V r = MG_READ(gates), z = MG_READ(gates + n_units), n = MG_READ(gates + 2 * n_units);
            const V state = MG_READ(gates + 3 * n_units), before = MG_READ(s->h_in[row] + u);
            if (s->gy)
                dh += MG_READ(s->gy + row * s->gy_n + u);
            dz = dh * (before - n) * (z * (1 - z));
            dn = dh * (1 - z) * ((1 - n) * (1 + n));
            dr = dn * state * (r * (1 - r));
            dstate = dn * r;
            dh *= z;
            sums[0] += dr;
            sums[1] += dz;
            sums[2] += dn;
            sums[3] += dstate;
        }
        MG_WRITE(carry, dh);
        MG_WRITE(da, dr);
        MG_WRITE(da + n_units, dz);
        MG_WRITE(da + 2 * n_units, dn);
        MG_WRITE(db, dr);
        MG_WRITE(db + n_units, dz);
        MG_WRITE(db + 2 * n_units, dstate);
    }
    for (int k = 0; k < 4; k++) {
        T *sum = s->sums + k * s->padded + u;
        v_store(sum, v_load(sum) + sums[k]);
    }
}

/* The end of a projected step: the tile is the output. */
MG_INLINE void mg_output_forward(const int full, const mg_forward_step *s, ptrdiff_t u, ptrdiff_t row, int rows,
                                 const T *tile, ptrdiff_t width)
{
    const ptrdiff_t m = s->units - u;
    for (; rows > 0; rows--, row++, tile += width) {
        V h = v_load(tile), y = h;
        if (MG_ENDED(s, row)) {
            h = MG_READ(s->h_in + row * s->h_n + u);
            y = K(0);
        }
        MG_WRITE(s->h_out + row * s->h_n + u, h);
        if (s->y)
            MG_WRITE(s->y + row * s->y_n + u, y);
    }
}

/* The cotangent of an output: da = tile + gy + carry. */
MG_INLINE void mg_output_backward(const int full, const mg_backward_step *s, ptrdiff_t u, ptrdiff_t row, int rows,
                                  const T *tile, ptrdiff_t width)
{
    const ptrdiff_t m = s->units - u;
    for (; rows > 0; rows--, row++, tile += width) {
        T *carry = s->carry + row * s->carry_n + u;
        V dh = v_load(tile) + MG_READ(carry), left = dh;
        if (MG_ENDED(s, row)) {
            dh = K(0);
        } else {
            if (s->gy)
                dh += MG_READ(s->gy + row * s->gy_n + u);
            left = K(0);
        }
        MG_WRITE(carry, left);
        MG_WRITE(s->da + row * s->da_n + u, dh);
    }
}

#define MG_CELL(name, step, call, ...)                                                                                        \
    MG_APART void MG_NAME(name)(const void *of, ptrdiff_t u, ptrdiff_t row, int rows, const T *tile, ptrdiff_t width)             \
    {                                                                                                                         \
        const step *s = of;                                                                                                               \
        if (s->units - u >= W)                                                                                                \
            call(__VA_ARGS__ 1, s, u, row, rows, tile, width);                                                                \
        else                                                                                                                  \
            call(__VA_ARGS__ 0, s, u, row, rows, tile, width);                                                                \
    }
MG_CELL(mg_cell_tanh_forward, mg_forward_step, mg_rnn_forward, 0, )
MG_CELL(mg_cell_relu_forward, mg_forward_step, mg_rnn_forward, 1, )
MG_CELL(mg_cell_lstm_forward, mg_forward_step, mg_lstm_forward, )
MG_CELL(mg_cell_gru_forward, mg_forward_step, mg_gru_forward, )
MG_CELL(mg_cell_output_forward, mg_forward_step, mg_output_forward, )
MG_CELL(mg_cell_tanh_backward, mg_backward_step, mg_rnn_backward, 0, )
MG_CELL(mg_cell_relu_backward, mg_backward_step, mg_rnn_backward, 1, )
MG_CELL(mg_cell_lstm_backward, mg_backward_step, mg_lstm_backward, )
MG_CELL(mg_cell_gru_backward, mg_backward_step, mg_gru_backward, )
MG_CELL(mg_cell_output_backward, mg_backward_step, mg_output_backward, )
#undef MG_CELL

/* In the order of MG_CELL_*. */
static const mg_cell mg_forward_cells[] = {MG_NAME(mg_cell_tanh_forward), MG_NAME(mg_cell_relu_forward),
                                                   MG_NAME(mg_cell_lstm_forward), MG_NAME(mg_cell_gru_forward)};
static const mg_cell mg_backward_cells[] = {MG_NAME(mg_cell_tanh_backward), MG_NAME(mg_cell_relu_backward),
                                                     MG_NAME(mg_cell_lstm_backward), MG_NAME(mg_cell_gru_backward)};
