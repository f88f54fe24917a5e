/* What a cell does with its product: one vector of units at a time, for a few rows of the batch, forward and backward.
 *
 * Include after panels.h, once for each inclusion of vec.h. `tile` holds the product of the rows' states with the recurrent
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
#define mg_input_forward_step MG_NAME(mg_input_forward_step)
#define mg_input_backward_step MG_NAME(mg_input_backward_step)
#define mg_gates_at MG_NAME(mg_gates_at)
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
#define mg_input_forward MG_NAME(mg_input_forward)
#define mg_input_backward MG_NAME(mg_input_backward)
#define mg_input_cells MG_NAME(mg_input_cells)

/* Sums over the batch, each a row of padded units: a gate's bias (GRU: W_hn's own is the fourth), then peepholes. */
enum { MG_SUM_BIAS = 0, MG_SUM_PEEPHOLE = 4, MG_SUMS = 7 };

/* With `full`, all W lanes are units; else the first m are. */
#define MG_READ(p) (full ? v_load(p) : v_load_part(p, m, 0))
#define MG_WRITE(p, v) (full ? v_store(p, v) : v_store_part(p, v, m))
#define MG_ENDED(s, row) ((s)->lengths && (s)->t >= (s)->lengths[row])
/* Values that are kept of a unit: its gates, and GRU's W_hn h' + b_hn. */
enum { MG_SLOTS_RNN = 1, MG_SLOTS_GRU = 4, MG_SLOTS_LSTM = 4 };

#endif

/* One step of all rows of a slice. Pointers are to the first row, strides between rows. */
typedef struct {
    ptrdiff_t t, units, padded; /* hidden units, and their number in whole vectors */
    ptrdiff_t rows;
    const ptrdiff_t *lengths;
    T *gates; /* [vectors of units, rows, slots, W], in the order of use: the input's part of each gate's argument and its
                 bias; then, if `keep`, the gates */
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
    ptrdiff_t rows;
    const ptrdiff_t *lengths;
    const T *gates;
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

/* Where the products of all steps' inputs with W_ih go, and those of their cotangents: row k is row k % rows of step
 * k / rows. */
typedef struct {
    ptrdiff_t units, padded, rows;
    T *gates; /* as above, step after step `gates_t` apart */
    ptrdiff_t gates_t;
    const T *bias;
} mg_input_forward_step;

typedef struct {
    ptrdiff_t units, rows;
    T *dx;
    ptrdiff_t dx_t, dx_n;
    int adds;
} mg_input_backward_step;

/* step: one of the above; u: first unit; tile: the rows' vectors, `width` apart. */
typedef void (*mg_cell)(const void *step, ptrdiff_t u, ptrdiff_t row, int rows, const T *tile, ptrdiff_t width);

/* A row's slots of the units u..u+W-1. */
MG_INLINE ptrdiff_t mg_gates_at(int slots, ptrdiff_t rows, ptrdiff_t u, ptrdiff_t row)
{
    return (u * rows + row * W) * slots;
}

MG_INLINE void mg_rnn_forward(const int relu, const int full, const mg_forward_step *s, ptrdiff_t u, ptrdiff_t row,
                              int rows, const T *tile, ptrdiff_t width)
{
    const ptrdiff_t m = s->units - u;
    for (; rows > 0; rows--, row++, tile += width) {
        V h, y;
        if (MG_ENDED(s, row)) {
            h = MG_READ(s->h_in + row * s->h_n + u);
            y = K(0);
        } else {
            const V z = v_load(tile) + v_load(s->gates + mg_gates_at(MG_SLOTS_RNN, s->rows, u, row));
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

/* Two loops: a row's chain from its gates to its output is longer than what a CPU looks ahead, so the rows' gates run beside
 * each other, then their outputs. */
MG_INLINE void mg_lstm_forward(const int full, const mg_forward_step *s, ptrdiff_t u, ptrdiff_t row, int rows,
                               const T *tile, ptrdiff_t width)
{
    const ptrdiff_t n = s->units, m = n - u;
    const T *p = s->peepholes;
    V cs[MG_PANEL_ROWS], os[MG_PANEL_ROWS];
    for (int r = 0; r < rows; r++, tile += width) {
        const V before = MG_READ(s->c_in + (row + r) * s->c_n + u);
        cs[r] = before;
        if (MG_ENDED(s, row + r))
            continue;
        T *gates = s->gates + mg_gates_at(MG_SLOTS_LSTM, s->rows, u, row + r);
        V i = v_load(tile) + v_load(gates);
        V f = v_load(tile + W) + v_load(gates + W);
        V g = v_load(tile + 2 * W) + v_load(gates + 2 * W);
        V o = v_load(tile + 3 * W) + v_load(gates + 3 * W);
        if (p) {
            i += MG_READ(p + u) * before;
            f += MG_READ(p + n + u) * before;
        }
        i = v_sigmoid(i);
        f = v_sigmoid(f);
        g = v_tanh(g);
        cs[r] = v_fma(f, before, i * g);
        if (p)
            o += MG_READ(p + 2 * n + u) * cs[r];
        os[r] = o = v_sigmoid(o);
        if (s->keep) {
            v_store(gates, i);
            v_store(gates + W, f);
            v_store(gates + 2 * W, g);
            v_store(gates + 3 * W, o);
        }
    }
    for (int r = 0; r < rows; r++, row++) {
        V h, y = K(0), cell = K(0);
        if (MG_ENDED(s, row)) {
            h = MG_READ(s->h_in + row * s->h_n + u);
        } else {
            cell = cs[r];
            y = h = os[r] * v_tanh(cell);
        }
        MG_WRITE(s->c_out + row * s->c_n + u, cs[r]);
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
    V ys[MG_PANEL_ROWS];
    for (int k = 0; k < MG_SUMS; k++)
        sums[k] = K(0);
    for (int r = 0; r < rows; r++) { /* what forward left comes from far away: ask while there is something to compute */
        const T *gates = s->gates + mg_gates_at(MG_SLOTS_LSTM, s->rows, u, row + r);
        for (int k = 0; k < 4; k++)
            __builtin_prefetch(gates + k * W);
        __builtin_prefetch(s->c_in + (row + r) * s->c_n + u);
        if (s->gy)
            __builtin_prefetch(s->gy + (row + r) * s->gy_n + u);
        ys[r] = v_tanh(MG_READ(s->c_out + (row + r) * s->c_n + u));
    }
    for (int r = 0; r < rows; r++, row++, tile += width) {
        T *da = s->da + row * s->da_n + u;
        T *carry = s->carry ? s->carry + row * s->carry_n + u : NULL;
        V dh = v_load(tile), di = K(0), df = K(0), dg = K(0), d_o = K(0), h = K(0);
        if (MG_ENDED(s, row)) {
            if (carry)
                MG_WRITE(carry, MG_READ(carry) + dh);
        } else {
            const T *gates = s->gates + mg_gates_at(MG_SLOTS_LSTM, s->rows, u, row);
            const V i = v_load(gates), f = v_load(gates + W), g = v_load(gates + 2 * W), o = v_load(gates + 3 * W);
            const V before = MG_READ(s->c_in + row * s->c_n + u), c = MG_READ(s->c_out + row * s->c_n + u);
            const V y = ys[r];
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
    const ptrdiff_t m = s->units - u;
    const V b = v_load(s->bias + 3 * s->padded + u);
    V ns[MG_PANEL_ROWS], zs[MG_PANEL_ROWS];
    for (int r = 0; r < rows; r++, tile += width) {
        if (MG_ENDED(s, row + r))
            continue;
        T *gates = s->gates + mg_gates_at(MG_SLOTS_GRU, s->rows, u, row + r);
        const V reset = v_sigmoid(v_load(tile) + v_load(gates));
        const V state = v_load(tile + 2 * W) + b;
        ns[r] = v_fma(reset, state, v_load(gates + 2 * W));
        zs[r] = v_sigmoid(v_load(tile + W) + v_load(gates + W));
        if (s->keep) {
            v_store(gates, reset);
            v_store(gates + W, zs[r]);
            v_store(gates + 3 * W, state);
        }
    }
    for (int r = 0; r < rows; r++, row++) {
        const V before = MG_READ(s->h_in + row * s->h_n + u);
        V h = before, y = K(0);
        if (!MG_ENDED(s, row)) {
            const V n = v_tanh(ns[r]);
            y = h = v_fma(zs[r], before, (1 - zs[r]) * n);
            if (s->keep)
                v_store(s->gates + mg_gates_at(MG_SLOTS_GRU, s->rows, u, row) + 2 * W, n);
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
            const T *gates = s->gates + mg_gates_at(MG_SLOTS_GRU, s->rows, u, row);
            const V r = v_load(gates), z = v_load(gates + W), n = v_load(gates + 2 * W);
            const V state = v_load(gates + 3 * W), before = MG_READ(s->h_in[row] + u);
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

/* The input's part of the gates' arguments. */
MG_INLINE void mg_input_forward(const int gates, const int slots, const int full, const mg_input_forward_step *s, ptrdiff_t u,
                                ptrdiff_t row, int rows, const T *tile, ptrdiff_t width)
{
    T *step = s->gates + row / s->rows * s->gates_t;
    V b[4];
    for (int k = 0; k < gates; k++)
        b[k] = v_load(s->bias + k * s->padded + u);
    for (row %= s->rows; rows > 0; rows--, tile += width) {
        T *to = step + mg_gates_at(slots, s->rows, u, row);
        for (int k = 0; k < gates; k++)
            v_store(to + k * W, v_load(tile + k * W) + b[k]);
        if (++row == s->rows) {
            row = 0;
            step += s->gates_t;
        }
    }
    (void)full; /* what padding computes is kept with the rest, and read by nobody */
}

MG_INLINE void mg_input_backward(const int full, const mg_input_backward_step *s, ptrdiff_t u, ptrdiff_t row, int rows,
                                 const T *tile, ptrdiff_t width)
{
    const ptrdiff_t m = s->units - u;
    T *step = s->dx + row / s->rows * s->dx_t;
    for (row %= s->rows; rows > 0; rows--, tile += width) {
        T *to = step + row * s->dx_n + u;
        MG_WRITE(to, s->adds ? MG_READ(to) + v_load(tile) : v_load(tile));
        if (++row == s->rows) {
            row = 0;
            step += s->dx_t;
        }
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
MG_CELL(mg_cell_rnn_input, mg_input_forward_step, mg_input_forward, 1, MG_SLOTS_RNN, )
MG_CELL(mg_cell_lstm_input, mg_input_forward_step, mg_input_forward, 4, MG_SLOTS_LSTM, )
MG_CELL(mg_cell_gru_input, mg_input_forward_step, mg_input_forward, 3, MG_SLOTS_GRU, )
MG_CELL(mg_cell_input_backward, mg_input_backward_step, mg_input_backward, )
#undef MG_CELL

/* In the order of MG_CELL_*. */
static const mg_cell mg_input_cells[] = {MG_NAME(mg_cell_rnn_input), MG_NAME(mg_cell_rnn_input),
                                         MG_NAME(mg_cell_lstm_input), MG_NAME(mg_cell_gru_input)};
static const mg_cell mg_forward_cells[] = {MG_NAME(mg_cell_tanh_forward), MG_NAME(mg_cell_relu_forward),
                                                   MG_NAME(mg_cell_lstm_forward), MG_NAME(mg_cell_gru_forward)};
static const mg_cell mg_backward_cells[] = {MG_NAME(mg_cell_tanh_backward), MG_NAME(mg_cell_relu_backward),
                                                     MG_NAME(mg_cell_lstm_backward), MG_NAME(mg_cell_gru_backward)};
