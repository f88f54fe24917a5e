/* One step of a recurrent layer on a GPU, forward and backward: everything of a step that is no matrix product.
 *
 * The products stay with the library: x W_ih' for all steps at once, h W_hh' once a step, and the weights' gradients at
 * the end. A kernel below has a thread for each sample n and unit h (or output p of a projection), h fastest. Axes stand
 * in the names: gates_n4h is (N, 4H), rows contiguous. A pointer that may be NULL says so. float and double.
 *
 * A sequence that has ended (t >= lengths[n]) holds its state, gives out zeros and receives no gradient of its own.
 * Needs the functions of CUDA_PREAMBLE in formula.py in front of it.
 */

typedef long long Size;

/* The element of this thread; false beyond the last one. */
__device__ inline bool mg_here(Size samples, Size units, Size *n, Size *h)
{
    Size at = (Size)blockIdx.x * blockDim.x + threadIdx.x;
    *n = at / units;
    *h = at % units;
    return at < samples * units;
}

__device__ inline bool mg_ended(const Size *lengths_n, Size n, Size t) { return lengths_n && t >= lengths_n[n]; }

/* What a gate adds up besides a peephole: its share of the input, of the state, and both biases. */
template <typename T>
__device__ inline T mg_sum(const T *from_x, const T *from_h, const T *b_ih, const T *b_hh, Size row, Size column)
{
    T total = from_x[row + column] + from_h[row + column];
    return b_ih ? total + b_ih[column] + b_hh[column] : total;
}

/*  i, f = sigmoid(W_ih x + b_ih + W_hh h + b_hh + p * c)      g = tanh(…) without p
 *  c' = f * c + i * g
 *  o = sigmoid(… + p_o * c')                                  h' = o * tanh(c')
 *
 * gates_n4h holds W_ih x on entry and i, f, g, o on return. With a projection m is o * tanh(c'), and `projected` gives h.
 */
template <typename T>
__global__ void lstm_forward(Size samples, Size units, Size t, const Size *lengths_n /* or NULL */, T *gates_n4h,
                             const T *from_h_n4h, const T *b_ih_4h /* or NULL */, const T *b_hh_4h /* or NULL */,
                             const T *p_3h /* or NULL */, const T *h_nh /* NULL with a projection */, const T *c_nh,
                             T *next_h_nh, T *next_c_nh, T *y_nh /* or NULL */, Size y_row, T *cells_nh /* or NULL */,
                             Size cells_row)
{
    Size n, h;
    if (!mg_here(samples, units, &n, &h))
        return;
    Size at = n * units + h, row = n * 4 * units;
    T c = c_nh[at], next_h = h_nh ? h_nh[at] : T(0), next_c = c;
    bool ended = mg_ended(lengths_n, n, t);
    T i = 0, f = 0, g = 0, o = 0;
    if (!ended) {
        i = mg_sum(gates_n4h, from_h_n4h, b_ih_4h, b_hh_4h, row, h);
        f = mg_sum(gates_n4h, from_h_n4h, b_ih_4h, b_hh_4h, row, units + h);
        g = mg_sum(gates_n4h, from_h_n4h, b_ih_4h, b_hh_4h, row, 2 * units + h);
        o = mg_sum(gates_n4h, from_h_n4h, b_ih_4h, b_hh_4h, row, 3 * units + h);
        if (p_3h) {
            i += p_3h[h] * c;
            f += p_3h[units + h] * c;
        }
        i = mg_sigmoid(i);
        f = mg_sigmoid(f);
        g = tanh(g);
        next_c = f * c + i * g;
        if (p_3h)
            o += p_3h[2 * units + h] * next_c;
        o = mg_sigmoid(o);
        next_h = o * tanh(next_c);
    }
    gates_n4h[row + h] = i;
    gates_n4h[row + units + h] = f;
    gates_n4h[row + 2 * units + h] = g;
    gates_n4h[row + 3 * units + h] = o;
    next_c_nh[at] = next_c;
    next_h_nh[at] = next_h;
    if (y_nh)
        y_nh[n * y_row + h] = ended ? T(0) : next_h;
    if (cells_nh)
        cells_nh[n * cells_row + h] = ended ? T(0) : next_c;
}

/* The derivatives of the sums, from those of h' and c':
 *
 *  do = dh * tanh(c') * o (1 - o)
 *  dc' += dh * o * (1 - tanh(c')^2) + p_o * do
 *  di = dc' * g * i (1 - i)      df = dc' * c * f (1 - f)      dg = dc' * i * (1 - g^2)
 *  dc = dc' * f + p_i * di + p_f * df
 *
 * dh_nh is what later steps send back, to which gy is added; on return it holds what an ended sequence passes on (0 where
 * it has not ended), to which the product with W_hh is added. dc_nh is dc' on entry and dc on return. With a projection
 * dh_nh is the derivative of m, and is left alone.
 */
template <typename T>
__global__ void lstm_backward(Size samples, Size units, Size t, const Size *lengths_n /* or NULL */, int projection,
                              const T *gates_n4h, const T *p_3h /* or NULL */, const T *c_nh, const T *next_c_nh,
                              const T *gy_nh /* or NULL */, Size gy_row, const T *gcells_nh /* or NULL */,
                              Size gcells_row, T *dh_nh, T *dc_nh, T *d_n4h)
{
    Size n, h;
    if (!mg_here(samples, units, &n, &h))
        return;
    Size at = n * units + h, row = n * 4 * units;
    if (mg_ended(lengths_n, n, t)) {
        for (int k = 0; k < 4; k++)
            d_n4h[row + k * units + h] = T(0);
        return;
    }
    T i = gates_n4h[row + h], f = gates_n4h[row + units + h], g = gates_n4h[row + 2 * units + h];
    T o = gates_n4h[row + 3 * units + h];
    T dh = dh_nh[at], dc = dc_nh[at], squashed = tanh(next_c_nh[at]);
    if (gy_nh)
        dh += gy_nh[n * gy_row + h];
    if (gcells_nh)
        dc += gcells_nh[n * gcells_row + h];
    T d_o = dh * squashed * (o * (T(1) - o));
    dc += dh * o * ((T(1) - squashed) * (T(1) + squashed));
    if (p_3h)
        dc += p_3h[2 * units + h] * d_o;
    T d_i = dc * g * (i * (T(1) - i));
    T d_f = dc * c_nh[at] * (f * (T(1) - f));
    T d_g = dc * i * ((T(1) - g) * (T(1) + g));
    dc = dc * f;
    if (p_3h)
        dc += p_3h[h] * d_i + p_3h[units + h] * d_f;
    d_n4h[row + h] = d_i;
    d_n4h[row + units + h] = d_f;
    d_n4h[row + 2 * units + h] = d_g;
    d_n4h[row + 3 * units + h] = d_o;
    dc_nh[at] = dc;
    if (!projection)
        dh_nh[at] = T(0);
}

/*  h' = W_hr m, already in next_h_np; sequences that have ended hold their h. */
template <typename T>
__global__ void projected_forward(Size samples, Size outputs, Size t, const Size *lengths_n /* or NULL */, const T *h_np,
                                  T *next_h_np, T *y_np, Size y_row)
{
    Size n, p;
    if (!mg_here(samples, outputs, &n, &p))
        return;
    Size at = n * outputs + p;
    bool ended = mg_ended(lengths_n, n, t);
    if (ended)
        next_h_np[at] = h_np[at];
    y_np[n * y_row + p] = ended ? T(0) : next_h_np[at];
}

/* The derivative of W_hr m, whose products with W_hr and m follow: dh + gy, 0 where the sequence has ended. On return dh_np
 * holds what an ended sequence passes on, 0 where it has not ended.
 */
template <typename T>
__global__ void projected_backward(Size samples, Size outputs, Size t, const Size *lengths_n /* or NULL */,
                                   const T *gy_np /* or NULL */, Size gy_row, T *dh_np, T *d_np)
{
    Size n, p;
    if (!mg_here(samples, outputs, &n, &p))
        return;
    Size at = n * outputs + p;
    if (mg_ended(lengths_n, n, t)) {
        d_np[at] = T(0);
        return;
    }
    d_np[at] = gy_np ? dh_np[at] + gy_np[n * gy_row + p] : dh_np[at];
    dh_np[at] = T(0);
}

/*  r, z = sigmoid(W_ih x + b_ih + W_hh h + b_hh)      u = W_hn h + b_hn
 *  n = tanh(W_in x + b_in + r * u)                    h' = (1 - z) * n + z * h
 *
 * gates_n3h holds W_ih x on entry and r, z, n on return; u_nh keeps u.
 */
template <typename T>
__global__ void gru_forward(Size samples, Size units, Size t, const Size *lengths_n /* or NULL */, T *gates_n3h,
                            const T *from_h_n3h, const T *b_ih_3h /* or NULL */, const T *b_hh_3h /* or NULL */,
                            const T *h_nh, T *next_h_nh, T *u_nh, T *y_nh, Size y_row)
{
    Size n, h;
    if (!mg_here(samples, units, &n, &h))
        return;
    Size at = n * units + h, row = n * 3 * units, last = row + 2 * units + h;
    bool ended = mg_ended(lengths_n, n, t);
    T before = h_nh[at], next_h = before;
    T r = 0, z = 0, new_gate = 0, u = 0;
    if (!ended) {
        r = mg_sigmoid(mg_sum(gates_n3h, from_h_n3h, b_ih_3h, b_hh_3h, row, h));
        z = mg_sigmoid(mg_sum(gates_n3h, from_h_n3h, b_ih_3h, b_hh_3h, row, units + h));
        u = from_h_n3h[last];
        new_gate = gates_n3h[last];
        if (b_ih_3h) {
            u += b_hh_3h[2 * units + h];
            new_gate += b_ih_3h[2 * units + h];
        }
        new_gate = tanh(new_gate + r * u);
        next_h = (T(1) - z) * new_gate + z * before;
    }
    gates_n3h[row + h] = r;
    gates_n3h[row + units + h] = z;
    gates_n3h[last] = new_gate;
    u_nh[at] = u;
    next_h_nh[at] = next_h;
    y_nh[n * y_row + h] = ended ? T(0) : next_h;
}

/* The derivatives of the sums, for the input's side and the state's:
 *
 *  dn = dh * (1 - z) * (1 - n^2)      dz = dh * (h - n) * z (1 - z)      dr = dn * u * r (1 - r)
 *  of x: dr, dz, dn                   of h: dr, dz, dn * r               dh passes on dh * z
 */
template <typename T>
__global__ void gru_backward(Size samples, Size units, Size t, const Size *lengths_n /* or NULL */, const T *gates_n3h,
                             const T *u_nh, const T *h_nh, const T *gy_nh /* or NULL */, Size gy_row, T *dh_nh,
                             T *dx_n3h, T *du_n3h)
{
    Size n, h;
    if (!mg_here(samples, units, &n, &h))
        return;
    Size at = n * units + h, row = n * 3 * units;
    if (mg_ended(lengths_n, n, t)) {
        for (int k = 0; k < 3; k++)
            dx_n3h[row + k * units + h] = du_n3h[row + k * units + h] = T(0);
        return;
    }
    T r = gates_n3h[row + h], z = gates_n3h[row + units + h], new_gate = gates_n3h[row + 2 * units + h];
    T dh = gy_nh ? dh_nh[at] + gy_nh[n * gy_row + h] : dh_nh[at];
    T d_n = dh * (T(1) - z) * ((T(1) - new_gate) * (T(1) + new_gate));
    T d_z = dh * (h_nh[at] - new_gate) * (z * (T(1) - z));
    T d_r = d_n * u_nh[at] * (r * (T(1) - r));
    dx_n3h[row + h] = du_n3h[row + h] = d_r;
    dx_n3h[row + units + h] = du_n3h[row + units + h] = d_z;
    dx_n3h[row + 2 * units + h] = d_n;
    du_n3h[row + 2 * units + h] = d_n * r;
    dh_nh[at] = dh * z;
}

/*  h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or max(0, …) with `rectify`. */
template <typename T>
__global__ void rnn_forward(Size samples, Size units, Size t, const Size *lengths_n /* or NULL */, int rectify,
                            const T *from_x_nh, const T *from_h_nh, const T *b_ih_h /* or NULL */,
                            const T *b_hh_h /* or NULL */, const T *h_nh, T *next_h_nh, T *y_nh, Size y_row)
{
    Size n, h;
    if (!mg_here(samples, units, &n, &h))
        return;
    Size at = n * units + h;
    bool ended = mg_ended(lengths_n, n, t);
    T next_h = h_nh[at];
    if (!ended) {
        T total = mg_sum(from_x_nh, from_h_nh, b_ih_h, b_hh_h, n * units, h);
        next_h = rectify ? mg_maximum(total, T(0)) : tanh(total);
    }
    next_h_nh[at] = next_h;
    y_nh[n * y_row + h] = ended ? T(0) : next_h;
}

/* The derivative of the sum: d = dh * (1 - h'^2), or dh where h' > 0 with `rectify`. */
template <typename T>
__global__ void rnn_backward(Size samples, Size units, Size t, const Size *lengths_n /* or NULL */, int rectify,
                             const T *next_h_nh, const T *gy_nh /* or NULL */, Size gy_row, T *dh_nh, T *d_nh)
{
    Size n, h;
    if (!mg_here(samples, units, &n, &h))
        return;
    Size at = n * units + h;
    if (mg_ended(lengths_n, n, t)) {
        d_nh[at] = T(0);
        return;
    }
    T next_h = next_h_nh[at], dh = gy_nh ? dh_nh[at] + gy_nh[n * gy_row + h] : dh_nh[at];
    d_nh[at] = rectify ? dh * T(next_h > T(0)) : dh * ((T(1) - next_h) * (T(1) + next_h));
    dh_nh[at] = T(0);
}
