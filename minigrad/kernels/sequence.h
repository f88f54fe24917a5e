/* A layer's whole sequence, forward and backward: what recurrent.h declares.
 *
 * Include after panels.h and cells.h, once for each inclusion of vec.h.
 *
 * Forward. The weights are packed once. The sequence runs in chunks of steps, short enough for their gates to
 * stay in cache: the input's part of a chunk's gates is one product, then every step adds the state's part panel by panel
 * and goes on to the cell while the result is at hand.
 *
 * Backward. The same from the last chunk to the first. A step's product of gate cotangents with the recurrent weights
 * ends in the cell's derivative of the step before; the cotangents of a chunk then give its part of the weights'
 * gradients and of the input's, one product each.
 *
 * Batches are cut into slices, each a task with its own chunks. A slice's rows of the same step lie together in every
 * workspace: [steps, rows, ...].
 */

#ifndef MG_SEQUENCE_H
#define MG_SEQUENCE_H

#define mg_panels MG_NAME(mg_panels)
#define mg_panels_size MG_NAME(mg_panels_size)
#define mg_panels_pack MG_NAME(mg_panels_pack)
#define mg_panels_product MG_NAME(mg_panels_product)
#define mg_panels_run MG_NAME(mg_panels_run)
#define mg_inputs MG_NAME(mg_inputs)
#define mg_inputs_task MG_NAME(mg_inputs_task)
#define mg_inputs_run MG_NAME(mg_inputs_run)
#define mg_panels_of MG_NAME(mg_panels_of)
#define mg_panels_begin MG_NAME(mg_panels_begin)
#define mg_sizes MG_NAME(mg_sizes)
#define mg_sizes_of MG_NAME(mg_sizes_of)
#define mg_distance MG_NAME(mg_distance)
#define mg_chunk MG_NAME(mg_chunk)
#define mg_carve MG_NAME(mg_carve)
#define mg_offset MG_NAME(mg_offset)
#define mg_weights MG_NAME(mg_weights)
#define mg_weights_place MG_NAME(mg_weights_place)
#define mg_weights_pack MG_NAME(mg_weights_pack)
#define mg_forward_room MG_NAME(mg_forward_room)
#define mg_backward_room MG_NAME(mg_backward_room)
#define mg_slice MG_NAME(mg_slice)
#define mg_call MG_NAME(mg_call)
#define mg_time MG_NAME(mg_time)
#define mg_lowest MG_NAME(mg_lowest)
#define mg_one_matrix MG_NAME(mg_one_matrix)
#define mg_gather MG_NAME(mg_gather)
#define mg_give MG_NAME(mg_give)
#define mg_give_rows MG_NAME(mg_give_rows)
#define mg_input_rows MG_NAME(mg_input_rows)
#define mg_state_before MG_NAME(mg_state_before)
#define mg_states_before MG_NAME(mg_states_before)
#define mg_initial MG_NAME(mg_initial)
#define mg_forward_room_place MG_NAME(mg_forward_room_place)
#define mg_forward_steps MG_NAME(mg_forward_steps)
#define mg_forward_slice MG_NAME(mg_forward_slice)
#define mg_forward_task MG_NAME(mg_forward_task)
#define mg_backward_room_place MG_NAME(mg_backward_room_place)
#define mg_backward_steps MG_NAME(mg_backward_steps)
#define mg_backward_chunk MG_NAME(mg_backward_chunk)
#define mg_again MG_NAME(mg_again)
#define mg_backward_slice MG_NAME(mg_backward_slice)
#define mg_backward_task MG_NAME(mg_backward_task)
#define mg_reduce MG_NAME(mg_reduce)
#define mg_plan MG_NAME(mg_plan)
#define mg_reserve_way MG_NAME(mg_reserve_way)
#define mg_call_place MG_NAME(mg_call_place)
#define mg_call_run MG_NAME(mg_call_run)
#define mg_recurrent_reserve MG_NAME(mg_recurrent_reserve)
#define mg_recurrent_forward MG_NAME(mg_recurrent_forward)
#define mg_recurrent_backward MG_NAME(mg_recurrent_backward)

#define MG_GEMM MG_CAT2(mg_kernels_, MG_ISA).MG_CAT2(gemm_f, MG_BITS)

#endif

/* ---- Panels of a whole matrix: for each vector of columns, one vector of each gate. */

typedef struct {
    const T *matrix;
    int transposed; /* the matrix is [gates * columns, depth], else [depth, columns] */
    ptrdiff_t columns, depth;
    int gates;
    ptrdiff_t count, each, more; /* panels, and vectors of columns in each; the first `more` have one more */
    T *data; /* NULL: too few rows ever meet the matrix, it is read where it lies */
} mg_panels;

/* As few panels as hold all vectors, none much smaller than the others. */
MG_INLINE mg_panels mg_panels_of(const T *matrix, int transposed, ptrdiff_t columns, ptrdiff_t depth, int gates)
{
    const ptrdiff_t vectors = (columns + W - 1) / W, most = gates == 1 ? MG_PANEL_VECS : 1;
    const ptrdiff_t count = (vectors + most - 1) / most;
    return (mg_panels){
        matrix, transposed, columns, depth, gates, count, count ? vectors / count : 0, count ? vectors % count : 0, NULL};
}

MG_INLINE ptrdiff_t mg_panels_size(const mg_panels *p)
{
    return (p->count * p->each + p->more) * W * p->gates * p->depth;
}

/* First vector of columns of a panel. */
MG_INLINE ptrdiff_t mg_panels_begin(const mg_panels *p, ptrdiff_t panel)
{
    return panel * p->each + (panel < p->more ? panel : p->more);
}

MG_APART void mg_panels_pack(const mg_panels *p)
{
    for (ptrdiff_t k = 0; p->data && k < p->count; k++) {
        const ptrdiff_t begin = mg_panels_begin(p, k), vecs = mg_panels_begin(p, k + 1) - begin;
        T *vector = p->data + begin * p->gates * W * p->depth;
        for (ptrdiff_t v = 0; v < vecs; v++)
            for (int g = 0; g < p->gates; g++, vector += W) {
                const ptrdiff_t u = (begin + v) * W;
                if (p->transposed)
                    mg_pack_rows(p->matrix + (g * p->columns + u) * p->depth, p->depth, p->columns - u, p->depth, vector,
                                 vecs * p->gates * W);
                else
                    mg_pack_columns(p->matrix + u, p->columns, p->columns - u, p->depth, vector, vecs * W);
            }
    }
}

/* tile[n, vecs * gates * W] = a[n, depth] times the columns from vector `begin` on. */
MG_INLINE void mg_panels_product(const mg_panels *p, ptrdiff_t begin, int vecs, int n, const T *a, ptrdiff_t lda, T *tile)
{
    const ptrdiff_t u = begin * W, width = vecs * p->gates * W;
    const ptrdiff_t columns = p->columns - u < vecs * W ? p->columns - u : vecs * W;
    if (p->data)
        mg_panel_products[vecs * p->gates - 1][n - 1](p->depth, a, lda, p->data + u * p->gates * p->depth, tile);
    else if (!p->transposed)
        MG_GEMM(0, 0, n, columns, p->depth, a, lda, p->matrix + u, p->columns, tile, width, 0);
    else
        for (int g = 0; g < p->gates; g++) /* of several gates there is one vector each */
            MG_GEMM(0, 1, n, columns, p->depth, a, lda, p->matrix + (g * p->columns + u) * p->depth, p->depth, tile + g * W,
                    width, 0);
}

/* Run a cell on every unit of every row: a[rows, depth] times the panels first..last-1. a == NULL: the products are zero,
 * as they are where no row of a block lives at time t. Steps go through the panels to and fro, so each finds in cache what
 * the one before it used last. */
MG_APART void mg_panels_run(const mg_panels *p, ptrdiff_t first, ptrdiff_t last, int fro, mg_cell cell, const void *step,
                            ptrdiff_t rows, const T *a, ptrdiff_t lda, const ptrdiff_t *lengths, ptrdiff_t t)
{
    T tile[MG_PANEL_ROWS * MG_PANEL_VECS * W] __attribute__((aligned(64)));
    if (p->data == NULL)
        memset(tile, 0, sizeof tile); /* what no product fills is padding */
    for (ptrdiff_t i = first; i < last; i++) {
        const ptrdiff_t k = fro ? last - 1 - (i - first) : i, begin = mg_panels_begin(p, k);
        const int vecs = (int)(mg_panels_begin(p, k + 1) - begin), all = vecs * p->gates, most = mg_panel_rows(all);
        for (ptrdiff_t row = 0; row < rows;) {
            const ptrdiff_t left = rows - row;
            const int n = (int)(left <= most ? left : left < 2 * most ? (left + 1) / 2 : most);
            int lives = a != NULL;
            if (lives && lengths) {
                lives = 0;
                for (ptrdiff_t r = row; r < row + n; r++)
                    lives |= t < lengths[r];
            }
            if (lives)
                mg_panels_product(p, begin, vecs, n, a + row * lda, lda, tile);
            else
                memset(tile, 0, (size_t)(n * all * W) * sizeof(T));
            for (int v = 0; v < vecs; v++)
                cell(step, (begin + v) * W, row, n, tile + v * p->gates * W, all * W);
            row += n;
        }
    }
}

/* ---- Sizes and places. */

typedef struct {
    int gates;
    ptrdiff_t padded;         /* hidden units in whole vectors */
    ptrdiff_t gates_n;        /* slots of a row */
    ptrdiff_t da_n, h_n, c_n; /* distances of rows */
} mg_sizes;

/* A distance of rows of n elements: whole cache lines, but not whole pages, whose lines would share one place in cache. */
MG_INLINE ptrdiff_t mg_distance(ptrdiff_t n)
{
    const ptrdiff_t line = 64 / sizeof(T), page = 4096 / sizeof(T);
    n = (n + line - 1) / line * line;
    return n > 0 && n % page == 0 ? n + line : n;
}

MG_INLINE mg_sizes mg_sizes_of(const mg_layer *l)
{
    const int gates = l->cell == MG_CELL_LSTM ? 4 : l->cell == MG_CELL_GRU ? 3 : 1;
    const int slots = l->cell == MG_CELL_LSTM ? MG_SLOTS_LSTM : l->cell == MG_CELL_GRU ? MG_SLOTS_GRU : MG_SLOTS_RNN;
    const ptrdiff_t padded = (l->hidden + W - 1) / W * W;
    return (mg_sizes){
        .gates = gates,
        .padded = padded,
        .gates_n = slots * padded,
        .da_n = mg_distance(gates * l->hidden),
        .h_n = mg_distance(l->output),
        .c_n = mg_distance(l->hidden),
    };
}

/* Steps of a chunk. */
MG_INLINE ptrdiff_t mg_chunk(ptrdiff_t steps, ptrdiff_t rows, ptrdiff_t distance, int training)
{
    if (rows <= 0 || distance <= 0)
        return steps;
    ptrdiff_t most = MG_CHUNK_BYTES / (ptrdiff_t)sizeof(T) / distance;
    if (training && most < MG_CHUNK_ROWS)
        most = MG_CHUNK_MOST;
    if (most < MG_CHUNK_FEW)
        most = MG_CHUNK_FEW;
    const ptrdiff_t chunk = (most + rows - 1) / rows;
    return chunk < steps ? chunk : steps;
}

MG_INLINE T *mg_carve(mg_arena *arena, ptrdiff_t elements)
{
    return mg_carve_bytes(arena, (size_t)elements * sizeof(T));
}

/* p + n, where p may be missing. */
MG_INLINE T *mg_offset(const void *p, ptrdiff_t n)
{
    return p ? (T *)p + n : NULL;
}

/* One direction's weights, packed as the one and the other way need them; no data where a way is not taken. */
typedef struct {
    mg_panels input, state, project;         /* w_ih, w_hh, w_hr forward */
    mg_panels input_back, back, unproject;   /* and backward */
    T *bias;                                 /* [4, padded] */
} mg_weights;

/* What a slice works in. */
typedef struct {
    T *h[2];        /* [rows, h_n] */
    T *c;           /* cells, [rows, c_n] of one step or more */
    T *gates;       /* [steps of a chunk or more, vectors of units, rows, slots, W] */
    T *unprojected; /* [rows, c_n] */
    T *x;           /* [chunk, rows, input], if x must be copied */
} mg_forward_room;

typedef struct {
    mg_forward_room again;
    T *da, *db;          /* [chunk, rows, da_n] */
    T *link;             /* [rows, da_n]: db of the step after the chunk */
    T *dh, *unprojected; /* with a projection, [chunk, rows, h_n] and [chunk, rows, c_n] */
    T *carry, *dh_0;     /* [rows, h_n] */
    T *dc;               /* [rows, c_n] */
    T *sums, *totals;    /* [MG_SUMS, padded]: a chunk's, all */
    T *x, *h;            /* [chunk, rows, n], where copies are needed */
    T *zeros;            /* [output] */
    const T **h_in;      /* [rows] */
    T *dw_ih, *dw_hh, *dw_hr; /* where the slice's part goes, and whether something is there already */
    int adds_ih, adds_hh, adds_hr;
} mg_backward_room;

typedef struct {
    const mg_layer *l;
    const mg_direction *way;
    const mg_weights *weights;
    mg_sizes z;
    ptrdiff_t first, rows, chunk;
    const ptrdiff_t *lengths;
    T *gates, *cells; /* the slice's part of the reserve */
    T *dx;            /* row (0, first) of where the direction's part of dx goes */
    ptrdiff_t dx_t, dx_n;
    int dx_adds;
    mg_forward_room forward;
    mg_backward_room backward;
} mg_slice;

typedef struct {
    int n_slices, together; /* together: a task runs both directions, one after the other */
    mg_slice *slices;       /* [directions, n_slices] */
    mg_weights weights[2];
    T *dx; /* of the second direction, if it runs beside the first */
} mg_call;

MG_INLINE void mg_weights_place(mg_weights *w, const mg_layer *l, const mg_direction *way, mg_arena *arena, int forward,
                                int backward)
{
    const mg_sizes z = mg_sizes_of(l);
    const ptrdiff_t n = l->hidden, out = l->output, in = l->input;
    const int packs = l->steps * l->batch >= MG_PACK_ROWS;
    const struct {
        mg_panels *at, is;
        int wanted;
    } all[] = {
        {&w->input, mg_panels_of(way->w_ih, 1, n, in, z.gates), forward},
        {&w->state, mg_panels_of(way->w_hh, 1, n, out, z.gates), forward},
        {&w->project, mg_panels_of(way->w_hr, 1, out, n, 1), forward && way->w_hr},
        {&w->input_back, mg_panels_of(way->w_ih, 0, in, z.gates * n, 1), backward && l->dx},
        {&w->back, mg_panels_of(way->w_hh, 0, out, z.gates * n, 1), backward},
        {&w->unproject, mg_panels_of(way->w_hr, 0, n, out, 1), backward && way->w_hr},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i].wanted) {
            *all[i].at = all[i].is;
            all[i].at->data = packs ? mg_carve(arena, mg_panels_size(all[i].at)) : NULL;
        }
    if (forward)
        w->bias = mg_carve(arena, 4 * z.padded);
}

MG_APART void mg_weights_pack(const mg_weights *w, const mg_layer *l, const mg_direction *way)
{
    const mg_sizes z = mg_sizes_of(l);
    const ptrdiff_t n = l->hidden;
    const mg_panels *all[] = {&w->input, &w->state, &w->project, &w->input_back, &w->back, &w->unproject};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        mg_panels_pack(all[i]);
    if (w->bias) {
        memset(w->bias, 0, (size_t)(4 * z.padded) * sizeof(T));
        const T *b_ih = way->b_ih, *b_hh = way->b_hh;
        for (int g = 0; g < z.gates; g++) {
            const int apart = l->cell == MG_CELL_GRU && g == 2;
            for (ptrdiff_t u = 0; u < n; u++) {
                if (b_ih)
                    w->bias[g * z.padded + u] = b_ih[g * n + u];
                if (b_hh)
                    w->bias[(g + apart) * z.padded + u] += b_hh[g * n + u];
            }
        }
    }
}

/* ---- Rows of a slice in arrays of any strides. */

/* The step that is computed s-th; lowest of the steps s0..s1-1. */
MG_INLINE ptrdiff_t mg_time(const mg_slice *p, ptrdiff_t s)
{
    return p->way->reverse ? p->l->steps - 1 - s : s;
}

MG_INLINE ptrdiff_t mg_lowest(const mg_slice *p, ptrdiff_t s0, ptrdiff_t s1)
{
    return p->way->reverse ? p->l->steps - s1 : s0;
}

/* Whether [steps, rows] vectors are rows of one matrix, and their distance. */
MG_INLINE int mg_one_matrix(ptrdiff_t steps, ptrdiff_t rows, ptrdiff_t by_t, ptrdiff_t by_n, ptrdiff_t *distance)
{
    *distance = rows == 1 ? by_t : by_n;
    return rows == 1 || steps == 1 || by_t == rows * by_n;
}

/* [steps, rows, n] from any strides, side by side. */
MG_APART void mg_gather(T *to, const T *from, ptrdiff_t steps, ptrdiff_t rows, ptrdiff_t n, ptrdiff_t by_t, ptrdiff_t by_n)
{
    for (ptrdiff_t t = 0; t < steps; t++)
        for (ptrdiff_t row = 0; row < rows; row++, to += n)
            memcpy(to, from + t * by_t + row * by_n, (size_t)n * sizeof(T));
}

MG_INLINE void mg_give(T *to, const T *from, ptrdiff_t n, int adds)
{
    if (adds)
        for (ptrdiff_t i = 0; i < n; i++)
            to[i] += from[i];
    else
        memcpy(to, from, (size_t)n * sizeof(T));
}

MG_APART void mg_give_rows(T *to, ptrdiff_t by_t, ptrdiff_t by_n, const T *from, ptrdiff_t from_n, ptrdiff_t steps,
                           ptrdiff_t rows, ptrdiff_t n, int adds)
{
    for (ptrdiff_t t = 0; t < steps; t++)
        for (ptrdiff_t row = 0; row < rows; row++, from += from_n)
            mg_give(to + t * by_t + row * by_n, from, n, adds);
}

/* x of the steps t..t+steps-1 as one matrix. */
MG_INLINE const T *mg_input_rows(const mg_slice *p, ptrdiff_t t, ptrdiff_t steps, T *room, ptrdiff_t *distance)
{
    const mg_layer *l = p->l;
    const T *x = (const T *)l->x + t * l->x_t + p->first * l->x_n;
    if (mg_one_matrix(steps, p->rows, l->x_t, l->x_n, distance))
        return x;
    mg_gather(room, x, steps, p->rows, l->input, l->x_t, l->x_n);
    *distance = l->input;
    return room;
}

/* A row's state before the step that is computed s-th; right wherever the row lives then. */
MG_INLINE const T *mg_state_before(const mg_slice *p, ptrdiff_t s, ptrdiff_t row)
{
    const mg_direction *way = p->way;
    const ptrdiff_t t = mg_time(p, s);
    if (s == 0 || (way->reverse && p->lengths && t + 1 >= p->lengths[row]))
        return way->h_0 ? (const T *)way->h_0 + (p->first + row) * p->l->output : p->backward.zeros;
    return (const T *)way->y + (way->reverse ? t + 1 : t - 1) * way->y_t + (p->first + row) * way->y_n;
}

/* The same for all rows of the steps s0..s1-1, in the order of time, as one matrix. */
MG_INLINE const T *mg_states_before(const mg_slice *p, ptrdiff_t s0, ptrdiff_t s1, T *room, ptrdiff_t *distance)
{
    const mg_direction *way = p->way;
    const ptrdiff_t n = p->l->output, lowest = mg_lowest(p, s0, s1);
    if (s0 > 0 && !(way->reverse && p->lengths) && mg_one_matrix(s1 - s0, p->rows, way->y_t, way->y_n, distance))
        return (const T *)way->y + (lowest + (way->reverse ? 1 : -1)) * way->y_t + p->first * way->y_n;
    for (ptrdiff_t s = s0; s < s1; s++) {
        T *to = room + (mg_time(p, s) - lowest) * p->rows * n;
        for (ptrdiff_t row = 0; row < p->rows; row++, to += n)
            memcpy(to, mg_state_before(p, s, row), (size_t)n * sizeof(T));
    }
    *distance = n;
    return room;
}

/* rows of an initial state, or of a cotangent that may be missing. */
MG_INLINE void mg_initial(T *to, ptrdiff_t distance, const void *from, ptrdiff_t first, ptrdiff_t rows, ptrdiff_t n)
{
    for (ptrdiff_t row = 0; row < rows; row++)
        if (from)
            memcpy(to + row * distance, (const T *)from + (first + row) * n, (size_t)n * sizeof(T));
        else
            memset(to + row * distance, 0, (size_t)n * sizeof(T));
}

/* ---- Forward. */

MG_INLINE void mg_forward_room_place(mg_forward_room *room, const mg_slice *p, mg_arena *arena, ptrdiff_t gates_steps,
                                     ptrdiff_t cells_steps)
{
    const mg_layer *l = p->l;
    ptrdiff_t distance;
    room->h[0] = mg_carve(arena, p->rows * p->z.h_n);
    room->h[1] = mg_carve(arena, p->rows * p->z.h_n);
    if (mg_has_cells(l))
        room->c = mg_carve(arena, cells_steps * p->rows * p->z.c_n);
    room->gates = mg_carve(arena, gates_steps * p->rows * p->z.gates_n);
    if (p->way->w_hr)
        room->unprojected = mg_carve(arena, p->rows * p->z.c_n);
    if (!mg_one_matrix(p->chunk, p->rows, l->x_t, l->x_n, &distance))
        room->x = mg_carve(arena, p->chunk * p->rows * l->input);
}

/* The product of a chunk's inputs with W_ih, or of its gates' cotangents: shared among threads where no slices are. */
typedef struct {
    const mg_panels *panels;
    int tasks;
    mg_cell cell;
    const void *step;
    ptrdiff_t rows, lda;
    const T *a;
} mg_inputs;

static void mg_inputs_task(void *argument, int k)
{
    const mg_inputs *job = argument;
    const ptrdiff_t count = job->panels->count;
    mg_panels_run(job->panels, mg_share(count, job->tasks, k), mg_share(count, job->tasks, k + 1), 0, job->cell, job->step,
                  job->rows, job->a, job->lda, NULL, 0);
}

MG_APART void mg_inputs_run(const mg_panels *p, mg_cell cell, const void *step, ptrdiff_t rows, const T *a, ptrdiff_t lda)
{
    const double work = (double)rows * (double)p->columns * p->gates * (double)p->depth;
    const ptrdiff_t threads = mg_threads() < p->count ? mg_threads() : p->count;
    const int tasks = work > threads * (double)MG_INPUT_WORK ? (int)threads : 1;
    mg_inputs job = {p, tasks, cell, step, rows, lda, a};
    mg_parallel(mg_inputs_task, &job, tasks);
}

/* Compute the steps s0..s1-1. h[0] is the state before and after; c the cells before, and `c_step` further on after each
 * step; gates the lowest step's. silent: results are there already. */
MG_APART void mg_forward_steps(const mg_slice *p, ptrdiff_t s0, ptrdiff_t s1, const mg_forward_room *room, T **h, T *c,
                               ptrdiff_t c_step, T *gates, int keep, int silent)
{
    const mg_layer *l = p->l;
    const mg_direction *way = p->way;
    const mg_weights *w = p->weights;
    const ptrdiff_t lowest = mg_lowest(p, s0, s1);
    ptrdiff_t distance;
    const T *x = mg_input_rows(p, lowest, s1 - s0, room->x, &distance);
    const mg_input_forward_step input = {.units = l->hidden,
                                         .padded = p->z.padded,
                                         .rows = p->rows,
                                         .gates = gates,
                                         .gates_t = p->rows * p->z.gates_n,
                                         .bias = w->bias};
    mg_inputs_run(&w->input, mg_input_cells[l->cell], &input, (s1 - s0) * p->rows, x, distance);
    mg_forward_step step = {
        .units = l->hidden,
        .padded = p->z.padded,
        .rows = p->rows,
        .lengths = p->lengths,
        .keep = keep,
        .bias = w->bias,
        .peepholes = way->w_ph,
        .h_n = p->z.h_n,
        .c_n = p->z.c_n,
        .y_n = way->y_n,
        .cells_n = way->cells_n,
    };
    for (ptrdiff_t s = s0; s < s1; s++) {
        const ptrdiff_t t = step.t = mg_time(p, s);
        step.gates = gates + (t - lowest) * p->rows * p->z.gates_n;
        step.h_in = h[0];
        step.h_out = h[1];
        step.c_in = c;
        step.c_out = c = mg_offset(c, c_step);
        step.y = silent ? NULL : mg_offset(way->y, t * way->y_t + p->first * way->y_n);
        step.cells = silent ? NULL : mg_offset(way->cells, t * way->cells_t + p->first * way->cells_n);
        if (way->w_hr) {
            mg_forward_step output = step;
            output.units = l->output;
            mg_forward_step inner = step;
            inner.h_in = inner.h_out = room->unprojected;
            inner.h_n = p->z.c_n;
            inner.y = NULL;
            mg_panels_run(&w->state, 0, w->state.count, t & 1, mg_forward_cells[l->cell], &inner, p->rows, h[0], p->z.h_n, p->lengths, t);
            mg_panels_run(&w->project, 0, w->project.count, t & 1, MG_NAME(mg_cell_output_forward), &output, p->rows, room->unprojected, p->z.c_n,
                          p->lengths, t);
        } else {
            mg_panels_run(&w->state, 0, w->state.count, t & 1, mg_forward_cells[l->cell], &step, p->rows, h[0], p->z.h_n, p->lengths, t);
        }
        T *next = h[1];
        h[1] = h[0];
        h[0] = next;
    }
}

MG_APART void mg_forward_slice(const mg_slice *p)
{
    const mg_layer *l = p->l;
    const mg_direction *way = p->way;
    const mg_forward_room *room = &p->forward;
    const ptrdiff_t step_c = p->rows * p->z.c_n, segment = mg_segment(l);
    const int keep = p->gates != NULL;
    T *h[2] = {room->h[0], room->h[1]}, *c = keep ? p->cells : room->c;
    mg_initial(h[0], p->z.h_n, way->h_0, p->first, p->rows, l->output);
    if (mg_has_cells(l))
        mg_initial(c, p->z.c_n, way->c_0, p->first, p->rows, l->hidden);
    if (way->w_hr)
        memset(room->unprojected, 0, (size_t)step_c * sizeof(T));
    for (ptrdiff_t s = 0, end; s < l->steps; s = end) {
        end = s + p->chunk < l->steps ? s + p->chunk : l->steps;
        if (keep) {
            mg_forward_steps(p, s, end, room, h, c, step_c, p->gates + mg_lowest(p, s, end) * p->rows * p->z.gates_n, 1, 0);
            c = mg_offset(c, (end - s) * step_c);
        } else {
            if (p->cells) { /* no chunk runs past a state that is kept */
                const ptrdiff_t next = (s / segment + 1) * segment;
                end = end < next ? end : next;
                if (s % segment == 0)
                    memcpy(p->cells + s / segment * step_c, c, (size_t)step_c * sizeof(T));
            }
            mg_forward_steps(p, s, end, room, h, c, 0, room->gates, 0, 0);
        }
    }
    if (way->h_n)
        mg_give_rows((T *)way->h_n + p->first * l->output, 0, l->output, h[0], p->z.h_n, 1, p->rows, l->output, 0);
    if (way->c_n)
        mg_give_rows((T *)way->c_n + p->first * l->hidden, 0, l->hidden, c, p->z.c_n, 1, p->rows, l->hidden, 0);
}

/* Task k: a slice's first direction or both; or slice k % n_slices of direction k / n_slices. */
static void mg_forward_task(void *argument, int k)
{
    const mg_call *call = argument;
    mg_forward_slice(call->slices + k);
    if (call->together && call->slices[k].l->directions == 2)
        mg_forward_slice(call->slices + call->n_slices + k);
}

/* ---- Backward. */

MG_INLINE void mg_backward_room_place(mg_backward_room *room, const mg_slice *p, mg_arena *arena, int partial)
{
    const mg_layer *l = p->l;
    const mg_direction *way = p->way;
    const ptrdiff_t rows = p->rows, chunk = p->chunk, gates = p->z.gates * l->hidden;
    ptrdiff_t distance;
    if (mg_computes_again(l))
        mg_forward_room_place(&room->again, p, arena, mg_segment(l), mg_segment(l) + 1);
    room->da = room->db = mg_carve(arena, chunk * rows * p->z.da_n);
    if (l->cell == MG_CELL_GRU)
        room->db = mg_carve(arena, chunk * rows * p->z.da_n);
    room->link = mg_carve(arena, rows * p->z.da_n);
    if (way->w_hr) {
        room->dh = mg_carve(arena, chunk * rows * p->z.h_n);
        room->unprojected = mg_carve(arena, chunk * rows * p->z.c_n);
    }
    room->carry = mg_carve(arena, rows * p->z.h_n);
    room->dh_0 = mg_carve(arena, rows * p->z.h_n);
    room->dc = mg_carve(arena, rows * p->z.c_n);
    room->sums = mg_carve(arena, MG_SUMS * p->z.padded);
    room->totals = mg_carve(arena, MG_SUMS * p->z.padded);
    if (!mg_one_matrix(chunk, rows, l->x_t, l->x_n, &distance))
        room->x = mg_carve(arena, chunk * rows * l->input);
    room->h = mg_carve(arena, chunk * rows * l->output);
    room->zeros = mg_carve(arena, l->output);
    room->h_in = mg_carve_bytes(arena, (size_t)rows * sizeof *room->h_in);
    room->dw_ih = way->dw_ih;
    room->dw_hh = way->dw_hh;
    room->dw_hr = way->dw_hr;
    room->adds_ih = !partial && way->adds & MG_ADDS_W_IH;
    room->adds_hh = !partial && way->adds & MG_ADDS_W_HH;
    room->adds_hr = !partial && way->adds & MG_ADDS_W_HR;
    if (partial) {
        if (way->dw_ih)
            room->dw_ih = mg_carve(arena, gates * l->input);
        if (way->dw_hh)
            room->dw_hh = mg_carve(arena, gates * l->output);
        if (way->dw_hr)
            room->dw_hr = mg_carve(arena, l->output * l->hidden);
    }
}

/* Go back through the steps s1-1..s0. gates: the lowest step's; c: the cells before step s0. */
MG_APART void mg_backward_steps(const mg_slice *p, ptrdiff_t s0, ptrdiff_t s1, const T *gates, const T *c)
{
    const mg_layer *l = p->l;
    const mg_direction *way = p->way;
    const mg_weights *w = p->weights;
    const mg_backward_room *room = &p->backward;
    const ptrdiff_t lowest = mg_lowest(p, s0, s1), step_da = p->rows * p->z.da_n, step_c = p->rows * p->z.c_n;
    mg_backward_step step = {
        .units = l->hidden,
        .padded = p->z.padded,
        .rows = p->rows,
        .lengths = p->lengths,
        .peepholes = way->w_ph,
        .c_n = p->z.c_n,
        .h_in = room->h_in,
        .y_n = way->y_n,
        .gy_n = way->gy_n,
        .gcells_n = way->gcells_n,
        .carry_n = p->z.h_n,
        .dc = room->dc,
        .da_n = p->z.da_n,
        .sums = room->sums,
        .h_n = p->z.c_n,
    };
    for (ptrdiff_t s = s1 - 1; s >= s0; s--) {
        const ptrdiff_t t = step.t = mg_time(p, s), at = t - lowest, after = way->reverse ? t - 1 : t + 1;
        const T *product = s + 1 == l->steps ? NULL : s + 1 == s1 ? room->link : room->db + (after - lowest) * step_da;
        step.gates = mg_offset(gates, at * p->rows * p->z.gates_n);
        step.c_in = mg_offset(c, (s - s0) * step_c);
        step.c_out = mg_offset(step.c_in, step_c);
        step.y = (const T *)way->y + t * way->y_t + p->first * way->y_n;
        step.gy = mg_offset(way->gy, t * way->gy_t + p->first * way->gy_n);
        step.gcells = mg_offset(way->gcells, t * way->gcells_t + p->first * way->gcells_n);
        step.da = room->da + at * step_da;
        step.db = room->db + at * step_da;
        step.carry = product == NULL || p->lengths || l->cell == MG_CELL_GRU ? room->carry : NULL;
        if (l->cell == MG_CELL_GRU)
            for (ptrdiff_t row = 0; row < p->rows; row++)
                room->h_in[row] = mg_state_before(p, s, row);
        if (way->w_hr) {
            mg_backward_step output = step;
            output.units = l->output;
            output.carry = room->carry;
            output.da = room->dh + at * p->rows * p->z.h_n;
            output.da_n = p->z.h_n;
            mg_panels_run(&w->back, 0, w->back.count, t & 1, MG_NAME(mg_cell_output_backward), &output, p->rows, product, p->z.da_n, p->lengths,
                          after);
            step.gy = NULL;
            step.carry = NULL;
            step.h = room->unprojected + at * step_c;
            mg_panels_run(&w->unproject, 0, w->unproject.count, t & 1, mg_backward_cells[l->cell], &step, p->rows, output.da, p->z.h_n, p->lengths, t);
        } else {
            mg_panels_run(&w->back, 0, w->back.count, t & 1, mg_backward_cells[l->cell], &step, p->rows, product, p->z.da_n, p->lengths, after);
        }
    }
}

/* What the gate cotangents of the steps s0..s1-1 give. */
MG_APART void mg_backward_chunk(mg_slice *p, ptrdiff_t s0, ptrdiff_t s1)
{
    const mg_layer *l = p->l;
    const mg_direction *way = p->way;
    mg_backward_room *room = &p->backward;
    const ptrdiff_t lowest = mg_lowest(p, s0, s1), steps = s1 - s0, rows = steps * p->rows, step_da = p->rows * p->z.da_n;
    const ptrdiff_t gates = p->z.gates * l->hidden;
    const T *da = room->da, *db = room->db;
    ptrdiff_t distance;
    if (room->dw_ih) {
        const T *x = mg_input_rows(p, lowest, steps, room->x, &distance);
        MG_GEMM(1, 0, gates, l->input, rows, da, p->z.da_n, x, distance, room->dw_ih, l->input, room->adds_ih);
        room->adds_ih = 1;
    }
    if (room->dw_hh) {
        const T *h = mg_states_before(p, s0, s1, room->h, &distance);
        MG_GEMM(1, 0, gates, l->output, rows, db, p->z.da_n, h, distance, room->dw_hh, l->output, room->adds_hh);
        room->adds_hh = 1;
    }
    if (room->dw_hr) {
        MG_GEMM(1, 0, l->output, l->hidden, rows, room->dh, p->z.h_n, room->unprojected, p->z.c_n, room->dw_hr, l->hidden,
                room->adds_hr);
        room->adds_hr = 1;
    }
    if (p->dx) {
        const mg_input_backward_step input = {.units = l->input,
                                              .rows = p->rows,
                                              .dx = p->dx + lowest * p->dx_t,
                                              .dx_t = p->dx_t,
                                              .dx_n = p->dx_n,
                                              .adds = p->dx_adds};
        mg_inputs_run(&p->weights->input_back, MG_NAME(mg_cell_input_backward), &input, rows, da, p->z.da_n);
    }
    for (ptrdiff_t i = 0; i < MG_SUMS * p->z.padded; i++) {
        room->totals[i] += room->sums[i];
        room->sums[i] = 0;
    }
    memcpy(room->link, room->db + (way->reverse ? steps - 1 : 0) * step_da, (size_t)step_da * sizeof(T));
}

/* Compute the steps s0..s1-1 again from the state that forward kept. */
MG_APART void mg_again(const mg_slice *p, ptrdiff_t s0, ptrdiff_t s1)
{
    const mg_layer *l = p->l;
    const mg_forward_room *room = &p->backward.again;
    const ptrdiff_t step_c = p->rows * p->z.c_n, lowest = mg_lowest(p, s0, s1);
    T *h[2] = {room->h[0], room->h[1]};
    for (ptrdiff_t row = 0; row < p->rows; row++)
        memcpy(h[0] + row * p->z.h_n, mg_state_before(p, s0, row), (size_t)l->output * sizeof(T));
    if (mg_has_cells(l))
        memcpy(room->c, p->cells + s0 / mg_segment(l) * step_c, (size_t)step_c * sizeof(T));
    for (ptrdiff_t s = s0, end; s < s1; s = end) {
        end = s + p->chunk < s1 ? s + p->chunk : s1;
        mg_forward_steps(p, s, end, room, h, mg_offset(room->c, (s - s0) * step_c), step_c,
                         room->gates + (mg_lowest(p, s, end) - lowest) * p->rows * p->z.gates_n, 1, 1);
    }
}

MG_APART void mg_backward_slice(mg_slice *p)
{
    const mg_layer *l = p->l;
    const mg_direction *way = p->way;
    const mg_backward_room *room = &p->backward;
    const ptrdiff_t rows = p->rows, step_c = rows * p->z.c_n, segment = mg_segment(l);
    memset(room->sums, 0, (size_t)(MG_SUMS * p->z.padded) * sizeof(T));
    memset(room->totals, 0, (size_t)(MG_SUMS * p->z.padded) * sizeof(T));
    memset(room->zeros, 0, (size_t)l->output * sizeof(T));
    mg_initial(room->carry, p->z.h_n, way->gh_n, p->first, rows, l->output);
    if (mg_has_cells(l))
        mg_initial(room->dc, p->z.c_n, way->gc_n, p->first, rows, l->hidden);
    for (ptrdiff_t end = rows ? l->steps : 0, begin; end > 0; end = begin) {
        const T *gates = p->gates, *c = p->cells;
        begin = 0;
        if (mg_computes_again(l)) {
            begin = (end - 1) / segment * segment;
            mg_again(p, begin, end);
            gates = room->again.gates;
            c = room->again.c;
        }
        const ptrdiff_t lowest = mg_lowest(p, begin, end);
        for (ptrdiff_t s1 = end, s0; s1 > begin; s1 = s0) {
            s0 = s1 - p->chunk > begin ? s1 - p->chunk : begin;
            mg_backward_steps(p, s0, s1, mg_offset(gates, (mg_lowest(p, s0, s1) - lowest) * rows * p->z.gates_n),
                              mg_offset(c, (s0 - begin) * step_c));
            mg_backward_chunk(p, s0, s1);
        }
    }
    if (room->dw_ih && !room->adds_ih)
        memset(room->dw_ih, 0, (size_t)(p->z.gates * l->hidden * l->input) * sizeof(T));
    if (room->dw_hh && !room->adds_hh)
        memset(room->dw_hh, 0, (size_t)(p->z.gates * l->hidden * l->output) * sizeof(T));
    if (room->dw_hr && !room->adds_hr)
        memset(room->dw_hr, 0, (size_t)(l->output * l->hidden) * sizeof(T));
    if (way->dh_0) {
        mg_backward_step first = {
            .units = l->output, .carry = room->carry, .carry_n = p->z.h_n, .da = room->dh_0, .da_n = p->z.h_n};
        mg_panels_run(&p->weights->back, 0, p->weights->back.count, 0, MG_NAME(mg_cell_output_backward), &first, rows, l->steps ? room->link : NULL,
                      p->z.da_n, NULL, 0);
        mg_give_rows((T *)way->dh_0 + p->first * l->output, 0, l->output, room->dh_0, p->z.h_n, 1, rows, l->output,
                     (way->adds & MG_ADDS_H_0) != 0);
    }
    if (way->dc_0)
        mg_give_rows((T *)way->dc_0 + p->first * l->hidden, 0, l->hidden, room->dc, p->z.c_n, 1, rows, l->hidden,
                     (way->adds & MG_ADDS_C_0) != 0);
}

static void mg_backward_task(void *argument, int k)
{
    const mg_call *call = argument;
    mg_backward_slice(call->slices + k);
    if (call->together && call->slices[k].l->directions == 2)
        mg_backward_slice(call->slices + call->n_slices + k);
}

/* The slices' parts of one direction's weight gradients, added up in order. */
MG_APART void mg_reduce(const mg_slice *slices, int n_slices)
{
    const mg_slice *p = slices;
    const mg_layer *l = p->l;
    const mg_direction *way = p->way;
    const ptrdiff_t units = l->hidden, gates = p->z.gates * units;
    const struct {
        T *to;
        unsigned adds;
        int sum, last; /* row of the sums; GRU's state has one of its own for the last gate */
        int rows;
    } sums[] = {
        {way->db_ih, MG_ADDS_B_IH, 0, p->z.gates - 1, p->z.gates},
        {way->db_hh, MG_ADDS_B_HH, 0, l->cell == MG_CELL_GRU ? 3 : p->z.gates - 1, p->z.gates},
        {way->dw_ph, MG_ADDS_W_PH, MG_SUM_PEEPHOLE, MG_SUM_PEEPHOLE + 2, 3},
    };
    for (int k = 1; k < n_slices; k++) {
        const mg_backward_room *part = &slices[k].backward;
        if (way->dw_ih)
            mg_give(way->dw_ih, part->dw_ih, gates * l->input, 1);
        if (way->dw_hh)
            mg_give(way->dw_hh, part->dw_hh, gates * l->output, 1);
        if (way->dw_hr)
            mg_give(way->dw_hr, part->dw_hr, l->output * units, 1);
        for (ptrdiff_t i = 0; i < MG_SUMS * p->z.padded; i++)
            p->backward.totals[i] += part->totals[i];
    }
    for (size_t i = 0; i < sizeof sums / sizeof *sums; i++)
        if (sums[i].to)
            for (int g = 0; g < sums[i].rows; g++) {
                const int row = g == sums[i].rows - 1 ? sums[i].last : sums[i].sum + g;
                mg_give(sums[i].to + g * units, p->backward.totals + row * p->z.padded, units, (way->adds & sums[i].adds) != 0);
            }
}

/* ---- Calls. */

/* How many slices, and whether the directions run side by side: as many tasks as threads that pay. */
MG_INLINE void mg_plan(mg_call *call, const mg_layer *l)
{
    const double work = (double)l->batch * (double)l->steps * mg_sizes_of(l).gates * (double)l->hidden *
                        (double)(l->input + l->output);
    const int threads = mg_threads();
    call->together = l->directions == 1 || threads == 1 || work < MG_TASK_WORK;
    double slices = call->together ? threads : (threads + 1) / 2;
    if (slices > work / MG_TASK_WORK)
        slices = work / MG_TASK_WORK;
    if (slices > (double)(l->batch / MG_SLICE_ROWS))
        slices = (double)(l->batch / MG_SLICE_ROWS);
    call->n_slices = slices > 1 ? (int)slices : 1;
}

/* Elements of the reserve that a direction takes: gates of all steps and cells before and after each, or the cells before
 * each segment. */
MG_INLINE ptrdiff_t mg_reserve_way(const mg_layer *l)
{
    const mg_sizes z = mg_sizes_of(l);
    if (!l->keep || !mg_has_gates(l))
        return 0;
    if (mg_computes_again(l))
        return mg_has_cells(l) ? mg_segments(l) * l->batch * z.c_n : 0;
    return l->steps * l->batch * z.gates_n + (mg_has_cells(l) ? (l->steps + 1) * l->batch * z.c_n : 0);
}

/* Lay out a call in `base`: packed weights, then what each slice works in. Return the bytes that takes. */
MG_APART size_t mg_call_place(mg_call *call, const mg_layer *l, char *base, int backward)
{
    mg_arena arena = {base, 0};
    const mg_sizes z = mg_sizes_of(l);
    const int again = mg_computes_again(l), keeps = l->keep && mg_has_gates(l) && !again;
    T *reserve = mg_reserve_way(l) ? (T *)((char *)l->reserve + MG_HEAD_BYTES) : NULL;
    mg_slice *next = mg_carve_bytes(&arena, (size_t)(l->directions * call->n_slices) * sizeof *next);
    call->slices = next;
    for (int d = 0; d < l->directions; d++) {
        const mg_direction *way = l->way + d;
        mg_weights_place(call->weights + d, l, way, &arena, !backward || again, backward);
        call->dx = d == 1 && backward && l->dx && !call->together ? mg_carve(&arena, l->steps * l->batch * l->input) : NULL;
        for (int k = 0; k < call->n_slices; k++) {
            const ptrdiff_t first = mg_share(l->batch, call->n_slices, k);
            mg_slice slice = {.l = l, .way = way, .weights = call->weights + d, .z = z, .first = first};
            slice.rows = mg_share(l->batch, call->n_slices, k + 1) - first;
            slice.lengths = l->lengths ? l->lengths + first : NULL;
            slice.chunk = mg_chunk(backward ? mg_segment(l) : l->steps, slice.rows, z.gates_n, backward || keeps);
            if (backward && l->dx) {
                const int apart = d == 1 && !call->together;
                slice.dx_t = apart ? l->batch * l->input : l->dx_t;
                slice.dx_n = apart ? l->input : l->dx_n;
                slice.dx = mg_offset(apart ? call->dx : l->dx, first * slice.dx_n);
                slice.dx_adds = d == 0 ? l->dx_adds : !apart;
            }
            if (keeps) {
                slice.gates = mg_offset(reserve, first * l->steps * z.gates_n);
                if (mg_has_cells(l))
                    slice.cells = mg_offset(reserve, l->batch * l->steps * z.gates_n + first * (l->steps + 1) * z.c_n);
            } else {
                slice.cells = mg_offset(reserve, first * mg_segments(l) * z.c_n);
            }
            if (backward)
                mg_backward_room_place(&slice.backward, &slice, &arena, k > 0);
            else
                mg_forward_room_place(&slice.forward, &slice, &arena, keeps ? 0 : slice.chunk, keeps ? 0 : 1);
            if (base)
                *next++ = slice;
        }
        reserve = mg_offset(reserve, mg_reserve_way(l));
    }
    return arena.at;
}

/* Run all tasks of a call; return its memory, which the caller gives back, or NULL. */
MG_APART char *mg_call_run(mg_call *call, const mg_layer *l, int backward)
{
    char *room = mg_workspace_take(mg_call_place(call, l, NULL, backward));
    if (room == NULL)
        return NULL;
    mg_call_place(call, l, room, backward);
    for (int d = 0; d < l->directions; d++)
        mg_weights_pack(call->weights + d, l, l->way + d);
    mg_parallel(backward ? mg_backward_task : mg_forward_task, call, call->n_slices * (call->together ? 1 : l->directions));
    return room;
}

size_t mg_recurrent_reserve(const mg_layer *l)
{
    const size_t elements = (size_t)l->directions * (size_t)mg_reserve_way(l);
    return elements ? MG_HEAD_BYTES + elements * sizeof(T) : 0;
}

int mg_recurrent_forward(const mg_layer *l)
{
    mg_call call = {0};
    mg_plan(&call, l);
    if (mg_reserve_way(l))
        ((mg_reserve_head *)l->reserve)->slices = call.n_slices;
    char *room = mg_call_run(&call, l, 0);
    mg_workspace_give(room);
    return room ? 0 : -1;
}

int mg_recurrent_backward(const mg_layer *l)
{
    mg_call call = {0};
    mg_plan(&call, l);
    if (mg_reserve_way(l))
        call.n_slices = ((const mg_reserve_head *)l->reserve)->slices;
    char *room = mg_call_run(&call, l, 1);
    if (room == NULL)
        return -1;
    for (int d = 0; d < l->directions; d++)
        mg_reduce(call.slices + d * call.n_slices, call.n_slices);
    if (call.dx)
        mg_give_rows(l->dx, l->dx_t, l->dx_n, call.dx, l->input, l->steps, l->batch, l->input, 1);
    mg_workspace_give(room);
    return 0;
}
