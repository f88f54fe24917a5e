/* Layers of recurrent networks: one call runs a whole sequence in one direction or in two.
 *
 * T steps, N batch, I input, H hidden, P output (H without projection), G gates (RNN 1, GRU 3, LSTM 4).
 *
 *     RNN   h = tanh or relu(z),  z = W_ih x + b_ih + W_hh h' + b_hh                        h', c': one step earlier
 *     GRU   r, z = sigmoid,  n = tanh(W_in x + b_in + r (W_hn h' + b_hn)),  h = (1 - z) n + z h'
 *     LSTM  i, f, o = sigmoid,  g = tanh,  c = f c' + i g,  h = W_hr (o tanh(c))
 *           with peepholes p_i c' in i, p_f c' in f and p_o c in o
 *
 * Pointers are to float or double, as the function that is called says. Rows are contiguous; weights and states have no
 * gaps; x, y, cells and their gradients have any strides (in elements) over time and batch, so that (T, N, ...), (N, T, ...)
 * and two directions side by side in (..., 2P) need no copy.
 *
 * Nothing here touches Python: callers release the interpreter lock. The same input and number of threads give the same bits.
 */
#ifndef MG_RECURRENT_H
#define MG_RECURRENT_H

#include <stddef.h>

enum { MG_CELL_TANH, MG_CELL_RELU, MG_CELL_LSTM, MG_CELL_GRU };

/* Bits of mg_direction.adds, in the order of its pointers. */
enum {
    MG_ADDS_H_0 = 1,
    MG_ADDS_C_0 = 2,
    MG_ADDS_W_IH = 4,
    MG_ADDS_W_HH = 8,
    MG_ADDS_B_IH = 16,
    MG_ADDS_B_HH = 32,
    MG_ADDS_W_HR = 64,
    MG_ADDS_W_PH = 128
};

typedef struct {
    int reverse; /* from each sequence's last step to its first */
    /* Parameters in PyTorch's layouts; gates i f g o, or r z n. */
    const void *w_ih;         /* (G*H, I) */
    const void *w_hh;         /* (G*H, P) */
    const void *b_ih, *b_hh;  /* (G*H,), or NULL */
    const void *w_hr;         /* (P, H), or NULL: no projection */
    const void *w_ph;         /* (3*H,), peepholes of i, f, o; or NULL */
    const void *h_0, *c_0;    /* (N, P), (N, H); NULL: zeros */
    /* Results; NULL where nobody asks (backward needs y). */
    void *y;                  /* (T, N, P), zero after a sequence's end */
    ptrdiff_t y_t, y_n;
    void *cells;              /* (T, N, H): c of every step, zero after a sequence's end */
    ptrdiff_t cells_t, cells_n;
    void *h_n, *c_n;          /* (N, P), (N, H) */
    /* Backward: cotangents of the results, NULL where none arrived. */
    const void *gy;
    ptrdiff_t gy_t, gy_n;
    const void *gcells;
    ptrdiff_t gcells_t, gcells_n;
    const void *gh_n, *gc_n;
    /* Backward: where gradients go, NULL where nobody asks; written, or added where `adds` says so. */
    void *dh_0, *dc_0, *dw_ih, *dw_hh, *db_ih, *db_hh, *dw_hr, *dw_ph;
    unsigned adds;
} mg_direction;

typedef struct {
    int cell, directions;
    int keep;            /* forward: backward will follow, so `reserve` is written */
    ptrdiff_t recompute; /* 0: what backward needs of every step is kept; k: the state before every k-th step is, and
                            backward computes the rest again */
    ptrdiff_t steps, batch, input, hidden, output;
    const ptrdiff_t *lengths; /* (N,), each 0..T; NULL: all have T steps */
    const void *x;            /* (T, N, I), finite after a sequence's end */
    ptrdiff_t x_t, x_n;
    void *dx; /* (T, N, I), or NULL; both directions add up in it */
    ptrdiff_t dx_t, dx_n;
    int dx_adds;   /* dx is added to what is there */
    void *reserve; /* aligned to 64; forward writes it, backward only reads it and may run more than once */
    mg_direction way[2];
} mg_layer;

typedef size_t (*mg_recurrent_size)(const mg_layer *); /* bytes of `reserve`; 0 if nothing is kept */
typedef int (*mg_recurrent_run)(const mg_layer *);     /* 0, or -1 if memory ran out */

#endif
