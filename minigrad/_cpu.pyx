"""The compiled lane: float32 and float64 NumPy arrays, the generated element-wise loops, and the matrix product.

A kernel declines (returns None or 0) whatever it is not made for, and the array lane takes over: other dtypes, exotic
layouts. What it does take, it does without Python objects beside the result.
"""
cimport cython
cimport numpy as cnp
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.math cimport NAN
from libc.stddef cimport ptrdiff_t
from libc.stdint cimport int64_t
from libc.string cimport memset

from ._core cimport Kernel, Lane, Node, operand_dims

import time

import numpy as np

cnp.import_array()

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(PyObject *)
    bint PyFloat_CheckExact(object)
    bint PyLong_CheckExact(object)
    PyObject *PyDict_GetItem(object, object)

cdef extern from "numpy/arrayobject.h":
    object PyArray_ZEROS(int, cnp.npy_intp *, int, int)

cdef extern from *:
    """
    static inline PyObject *mg_empty(PyArrayObject *like, int ndim, npy_intp *dims) {
        PyArray_Descr *descr = PyArray_DESCR(like);
        Py_INCREF(descr);      /* stolen by the call */
        return PyArray_NewFromDescr(&PyArray_Type, descr, ndim, dims, NULL, NULL, 0, NULL);
    }
    """
    object mg_empty(cnp.ndarray like, int ndim, cnp.npy_intp *dims)

cdef extern from "recurrent.h":
    enum: MG_CELL_TANH, MG_CELL_RELU, MG_CELL_LSTM, MG_CELL_GRU
    ctypedef struct mg_direction:
        int reverse
        const void *w_ih
        const void *w_hh
        const void *b_ih
        const void *b_hh
        const void *w_hr
        const void *w_ph
        const void *h_0
        const void *c_0
        void *y
        ptrdiff_t y_t, y_n
        void *cells
        ptrdiff_t cells_t, cells_n
        void *h_n
        void *c_n
        const void *gy
        ptrdiff_t gy_t, gy_n
        const void *gcells
        ptrdiff_t gcells_t, gcells_n
        const void *gh_n
        const void *gc_n
        void *dh_0
        void *dc_0
        void *dw_ih
        void *dw_hh
        void *db_ih
        void *db_hh
        void *dw_hr
        void *dw_ph
        unsigned adds
    ctypedef struct mg_layer:
        int cell, directions, keep
        ptrdiff_t recompute, steps, batch, input, hidden, output
        const ptrdiff_t *lengths
        const void *x
        ptrdiff_t x_t, x_n
        void *dx
        ptrdiff_t dx_t, dx_n
        int dx_adds
        void *reserve
        mg_direction way[2]

cdef extern from "cpu.h":
    enum: MG_MAX_ARGS, MG_MAX_DIMS, MG_RESULT
    ctypedef void (*mg_loop)(char **, const ptrdiff_t *, ptrdiff_t, int) noexcept nogil
    ctypedef struct mg_rule:
        mg_loop loop[2]
        unsigned mask
        int identity
    ctypedef struct mg_elementwise:
        const char *name
        int n_operands
        int n_params
        mg_loop forward[2]
        mg_rule rules[4]
    ctypedef struct mg_update:
        const char *name
        int n_arrays
        int n_params
        void (*run[2])(char **, const double *, ptrdiff_t) noexcept nogil
    ctypedef size_t (*mg_recurrent_size)(const mg_layer *) noexcept nogil
    ctypedef int (*mg_recurrent_run)(const mg_layer *) noexcept nogil
    ctypedef struct mg_kernels:
        const char *isa
        const mg_elementwise *elementwise
        mg_loop copy[2]
        void gemm_f32(int, int, ptrdiff_t, ptrdiff_t, ptrdiff_t, const float *, ptrdiff_t, const float *, ptrdiff_t,
                      float *, ptrdiff_t, int) noexcept nogil
        void gemm_f64(int, int, ptrdiff_t, ptrdiff_t, ptrdiff_t, const double *, ptrdiff_t, const double *, ptrdiff_t,
                      double *, ptrdiff_t, int) noexcept nogil
        const mg_update *updates
        double (*sum_squares[2])(const char *, ptrdiff_t) noexcept nogil
        void (*cross_entropy[2])(ptrdiff_t, ptrdiff_t, const char *, const int64_t *, int64_t, char *) noexcept nogil
        void (*cross_entropy_gradient[2])(ptrdiff_t, ptrdiff_t, const char *, const int64_t *, int64_t, const char *,
                                          ptrdiff_t, double, char *) noexcept nogil
        double (*fma_chains[2])(ptrdiff_t, double, double, double *) noexcept nogil
        mg_recurrent_size recurrent_reserve[2]
        mg_recurrent_run recurrent_forward[2]
        mg_recurrent_run recurrent_backward[2]
    const mg_kernels *mg_cpu_kernels()
    void mg_run(mg_loop, int, int, int, const ptrdiff_t *, char **, const ptrdiff_t *, int) noexcept nogil

cdef extern from "pool.h":
    enum: MG_MOST_THREADS
    void *mg_workspace_take(size_t) nogil
    void mg_workspace_give(void *) nogil
    int mg_threads() nogil
    void mg_set_threads(int) nogil

cdef const mg_kernels *kernels = mg_cpu_kernels()
if kernels == NULL:
    raise ImportError(
        "MINIGRAD_ISA names an instruction set that this CPU does not have, or none of base, avx2, avx512")

cdef enum:
    # From this size on, other threads may run Python while a loop runs here.
    RELEASE = 1 << 15
    # The same for a product, in multiplications.
    LONG_PRODUCT = 1 << 17
    MG_RECURRENT_OPERANDS = 24


def isa():
    """Name the instruction set that the kernels run: "avx512", "avx2" or "base"."""
    return (<bytes> kernels.isa).decode()


MOST_THREADS = MG_MOST_THREADS


def threads():
    """Return how many threads the kernels may use."""
    return mg_threads()


def set_threads(int number):
    """Set how many threads the kernels may use: at least 1."""
    mg_set_threads(number)


def fma_peak(dtype):
    """Measure the most that one core can compute in "float32" or "float64", in operations a second.

    A product and a sum count two. The best of several millisecond-long runs of nothing but them is taken.
    """
    cdef int kind = 0 if np.dtype(dtype) == np.float32 else 1
    cdef double flops, start, best = 0
    for _ in range(9):
        start = time.perf_counter()
        with nogil:
            kernels.fma_chains[kind](200_000, 0.5, 1.0, &flops)
        best = max(best, flops / (time.perf_counter() - start))
    return best


# --- arrays ---------------------------------------------------------------------------------------

cdef inline int precision(cnp.ndarray a) noexcept:
    """0 for float32, 1 for float64, -1 for what no kernel takes."""
    cdef int number = cnp.PyArray_TYPE(a)
    if not cnp.PyArray_ISBEHAVED_RO(a):
        return -1
    return 0 if number == cnp.NPY_FLOAT32 else 1 if number == cnp.NPY_FLOAT64 else -1


cdef inline object empty(int ndim, cnp.npy_intp *dims, cnp.ndarray like):
    """A new array of the dtype of `like`; its descriptor is passed on, which spares NumPy the look-up."""
    return mg_empty(like, ndim, dims)


cdef inline object empty_like(cnp.ndarray a):
    return empty(cnp.PyArray_NDIM(a), cnp.PyArray_DIMS(a), a)


cdef inline bint same_shape(cnp.ndarray a, cnp.ndarray b) noexcept:
    cdef int d, ndim = cnp.PyArray_NDIM(a)
    if ndim != cnp.PyArray_NDIM(b):
        return False
    for d in range(ndim):
        if cnp.PyArray_DIM(a, d) != cnp.PyArray_DIM(b, d):
            return False
    return True


cdef inline bint is_packed(cnp.ndarray a) noexcept:
    return cnp.PyArray_IS_C_CONTIGUOUS(a)


cdef inline void run_flat(mg_loop loop, char **p, const ptrdiff_t *s, ptrdiff_t n, int accumulate) noexcept:
    if n < RELEASE:
        loop(p, s, n, accumulate)
    else:
        with nogil:
            loop(p, s, n, accumulate)


cdef int run_nd(mg_loop loop, int n_in, int ndim, const ptrdiff_t *dims, PyObject **xs, cnp.ndarray out, char **scalars,
                int accumulate) except -1:
    """Run the loop with inputs (arrays, or scalars where xs[j] is NULL) and output broadcast to dims; 0 to decline."""
    cdef ptrdiff_t strides[(MG_MAX_ARGS + 1) * MG_MAX_DIMS]
    cdef char *p[MG_MAX_ARGS + 1]
    cdef int itemsize = <int> cnp.PyArray_ITEMSIZE(out)
    cdef int j, d, shift
    cdef cnp.ndarray a
    cdef ptrdiff_t stride
    for j in range(n_in + 1):
        if j < n_in and xs[j] == NULL:
            p[j] = scalars[j]
            for d in range(ndim):
                strides[j * ndim + d] = 0
            continue
        a = out if j == n_in else <cnp.ndarray> xs[j]
        p[j] = <char *> cnp.PyArray_DATA(a)
        shift = ndim - cnp.PyArray_NDIM(a)
        for d in range(ndim):
            stride = 0
            if d >= shift and cnp.PyArray_DIM(a, d - shift) != 1:
                stride = cnp.PyArray_STRIDE(a, d - shift)
                if stride % itemsize:
                    return 0
            strides[j * ndim + d] = stride // itemsize
    with nogil:
        mg_run(loop, itemsize, n_in, ndim, dims, p, strides, accumulate)
    return 1


@cython.final
cdef class CpuLane(Lane):
    """NumPy arrays, for the heart."""

    cdef int shape(self, object data, Py_ssize_t **dims) except -1:
        dims[0] = <Py_ssize_t *> cnp.PyArray_DIMS(<cnp.ndarray> data)
        return cnp.PyArray_NDIM(<cnp.ndarray> data)

    cdef object scalar(self, object value, object like):
        cdef cnp.ndarray a, x = <cnp.ndarray> like
        cdef int kind = precision(x)
        cdef double number
        if kind < 0:
            return None
        if PyFloat_CheckExact(value) or PyLong_CheckExact(value):
            number = value
        else:
            return None
        a = empty(0, NULL, x)
        if kind == 0:
            (<float *> cnp.PyArray_DATA(a))[0] = <float> number
        else:
            (<double *> cnp.PyArray_DATA(a))[0] = number
        return a

    cdef int add(self, PyObject **slot, object more) except -1:
        """Add an array to a slot's, in place where nobody else holds it; 0 to decline."""
        cdef cnp.ndarray held = <cnp.ndarray> slot[0], other
        cdef char *p[2]
        cdef ptrdiff_t s[2]
        cdef int kind = precision(held)
        if type(more) is not np_ndarray:
            return 0
        other = <cnp.ndarray> more
        if (kind < 0 or precision(other) != kind or not same_shape(held, other)
                or not is_packed(held) or not is_packed(other)):
            return 0
        if Py_REFCNT(slot[0]) > 2 or not cnp.PyArray_CHKFLAGS(held, cnp.NPY_ARRAY_OWNDATA):   # the slot's and `held`
            return replace_by_sum(slot, held, other, kind)
        p[0], p[1] = <char *> cnp.PyArray_DATA(other), <char *> cnp.PyArray_DATA(held)
        s[0] = s[1] = 1
        run_flat(kernels.copy[kind], p, s, cnp.PyArray_SIZE(held), 1)
        return 1

    cdef bint exclusive(self, PyObject *data):
        return Py_REFCNT(data) == 1 and cnp.PyArray_CHKFLAGS(<cnp.ndarray> data, cnp.NPY_ARRAY_OWNDATA)

    cdef bint uniform(self, PyObject **xs, int n):
        """Whether all arrays are float32, or all float64: then no operand needs a conversion."""
        cdef int k, kind = precision(<cnp.ndarray> xs[0]) if n else -1
        for k in range(1, n):
            if precision(<cnp.ndarray> xs[k]) != kind:
                return False
        return kind >= 0


cdef object np_ndarray = np.ndarray


cdef int replace_by_sum(PyObject **slot, cnp.ndarray held, cnp.ndarray other, int kind) except -1:
    cdef cnp.ndarray out = empty_like(held)
    cdef char *p[2]
    cdef ptrdiff_t s[2]
    cdef ptrdiff_t n = cnp.PyArray_SIZE(held)
    s[0] = s[1] = 1
    p[0], p[1] = <char *> cnp.PyArray_DATA(held), <char *> cnp.PyArray_DATA(out)
    run_flat(kernels.copy[kind], p, s, n, 0)
    p[0] = <char *> cnp.PyArray_DATA(other)
    run_flat(kernels.copy[kind], p, s, n, 1)
    fill(slot, out)
    return 1


cdef inline void fill(PyObject **slot, object value) noexcept:
    cdef PyObject *old = slot[0]
    Py_INCREF(value)
    slot[0] = <PyObject *> value
    if old != NULL:
        Py_DECREF(<object> old)


cdef cnp.ndarray target_for(PyObject **slot, int ndim, cnp.npy_intp *dims, cnp.ndarray like, bint zeroed,
                            int *accumulate):
    """The array that a contribution is written to (or, with `accumulate` set, added to): the slot's own or a new one.

    What the slot holds is copied first where somebody else holds it too, and the copy takes its place.
    """
    cdef cnp.ndarray held
    if slot[0] == NULL:
        accumulate[0] = zeroed
        held = PyArray_ZEROS(ndim, dims, cnp.PyArray_TYPE(like), 0) if zeroed else empty(ndim, dims, like)
        fill(slot, held)
        return held
    held = <cnp.ndarray> slot[0]
    if (Py_REFCNT(slot[0]) == 2 and cnp.PyArray_CHKFLAGS(held, cnp.NPY_ARRAY_OWNDATA) and is_packed(held)
            and cnp.PyArray_TYPE(held) == cnp.PyArray_TYPE(like)):
        accumulate[0] = 1
        return held
    # Shared with another operand, or a view: start from a copy of it.
    held = empty(ndim, dims, like)
    if cnp.PyArray_CopyInto(held, <cnp.ndarray> slot[0]) < 0:
        raise RuntimeError("could not copy a gradient")
    fill(slot, held)
    accumulate[0] = 1
    return held


# --- element-wise ---------------------------------------------------------------------------------

@cython.final
cdef class ElementwiseKernel(Kernel):
    """An element-wise record on the compiled lane."""
    cdef const mg_elementwise *entry
    cdef tuple params          # names, in the order of the loops' arguments

    cdef object forward(self, PyObject **xs, int n, object params):
        cdef const mg_elementwise *e = self.entry
        cdef cnp.ndarray a = <cnp.ndarray> xs[0], b, out
        cdef int kind = precision(a), j, ndim
        cdef bint flat = is_packed(a)
        cdef char *p[MG_MAX_ARGS + 1]
        cdef ptrdiff_t s[MG_MAX_ARGS + 1]
        cdef ptrdiff_t dims[MG_MAX_DIMS]
        cdef double numbers[MG_MAX_ARGS]
        cdef PyObject *ys[MG_MAX_ARGS]
        if kind < 0:
            return None
        p[0] = <char *> cnp.PyArray_DATA(a)
        s[0] = 1
        for j in range(1, n):
            b = <cnp.ndarray> xs[j]
            if precision(b) != kind:
                return None
            p[j] = <char *> cnp.PyArray_DATA(b)
            if flat:
                if cnp.PyArray_NDIM(b) == 0:
                    s[j] = 0
                elif same_shape(a, b) and is_packed(b):
                    s[j] = 1
                else:
                    flat = False
        for j in range(e.n_params):
            place_number(params[self.params[j]], kind, &numbers[j])
            p[n + j] = <char *> &numbers[j]
            s[n + j] = 0
        if flat:
            out = empty_like(a)
            p[n + e.n_params] = <char *> cnp.PyArray_DATA(out)
            s[n + e.n_params] = 1
            run_flat(e.forward[kind], p, s, cnp.PyArray_SIZE(a), 0)
            return out
        ndim = broadcast(xs, n, dims)
        if ndim < 0:
            return None                      # NumPy words the error
        for j in range(n):
            ys[j] = xs[j]
        for j in range(e.n_params):
            ys[n + j] = NULL
        out = empty(ndim, <cnp.npy_intp *> dims, a)
        if not run_nd(e.forward[kind], n + e.n_params, ndim, dims, ys, out, p, 0):
            return None
        return out

    cdef int backward(self, Node node, PyObject **saved, PyObject **gs, PyObject ***targets) except -1:
        cdef const mg_elementwise *e = self.entry
        cdef const mg_rule *rule
        cdef cnp.ndarray g, out
        cdef int kind, k, j, m, d, accumulate, ndim
        cdef Py_ssize_t *dims
        cdef int axes
        cdef bint whole, flat
        cdef char *p[MG_MAX_ARGS + 1]
        cdef ptrdiff_t s[MG_MAX_ARGS + 1]
        cdef double numbers[MG_MAX_ARGS]
        cdef PyObject *ys[MG_MAX_ARGS]
        if type(<object> gs[0]) is not np_ndarray:
            return 0
        g = <cnp.ndarray> gs[0]
        kind = precision(g)
        ndim = cnp.PyArray_NDIM(g)
        if kind < 0:
            return 0
        for k in range(node.n_in):
            for j in range(k + 1):
                if saved[j] == NULL:
                    continue
                if type(<object> saved[j]) is not np_ndarray or precision(<cnp.ndarray> saved[j]) != kind:
                    return 0
        for k in range(node.n_in):
            if targets[k] == NULL:
                continue
            rule = &e.rules[k]
            axes = operand_dims(node, k, &dims)
            whole = axes == ndim
            for d in range(ndim):
                if not whole:
                    break
                whole = dims[d] == cnp.PyArray_DIM(g, d)
            if rule.identity and whole and targets[k][0] == NULL:
                fill(targets[k], g)
                continue
            # arguments of the loop: g, then the named operands, parameters, result
            ys[0] = <PyObject *> g
            p[0] = <char *> cnp.PyArray_DATA(g)
            s[0] = 1
            flat = whole and is_packed(g)
            m = 1
            for j in range(e.n_operands):
                if rule.mask & (1 << j):
                    ys[m] = saved[j]
                    m += 1
            for j in range(e.n_params):
                if rule.mask & (1 << (e.n_operands + j)):
                    place_number((<object> node.params)[self.params[j]], kind, &numbers[m])
                    p[m] = <char *> &numbers[m]
                    s[m] = 0
                    ys[m] = NULL
                    m += 1
            if rule.mask & MG_RESULT:
                ys[m] = saved[node.n_in]
                m += 1
            for j in range(1, m):
                if ys[j] == NULL:
                    continue
                p[j] = <char *> cnp.PyArray_DATA(<cnp.ndarray> ys[j])
                if cnp.PyArray_NDIM(<cnp.ndarray> ys[j]) == 0:
                    s[j] = 0
                elif is_packed(<cnp.ndarray> ys[j]) and same_shape(<cnp.ndarray> ys[j], g):
                    s[j] = 1
                else:
                    flat = False
            out = target_for(targets[k], axes, <cnp.npy_intp *> dims, g, not whole, &accumulate)
            if flat:
                p[m] = <char *> cnp.PyArray_DATA(out)
                s[m] = 1
                run_flat(rule.loop[kind], p, s, cnp.PyArray_SIZE(g), accumulate)
            elif not run_nd(rule.loop[kind], m, ndim, <ptrdiff_t *> cnp.PyArray_DIMS(g), ys, out, p, accumulate):
                raise RuntimeError("an array with strides that are no multiple of its element size")
        return 1


cdef inline int place_number(object value, int kind, double *room) except -1:
    if kind == 0:
        (<float *> room)[0] = <float> (<double> value)
    else:
        room[0] = value
    return 0


cdef int broadcast(PyObject **xs, int n, ptrdiff_t *dims) noexcept:
    """NumPy's broadcast shape; -1 if there is none."""
    cdef int ndim = 0, j, d, shift
    cdef ptrdiff_t size
    cdef cnp.ndarray a
    for j in range(n):
        ndim = max(ndim, cnp.PyArray_NDIM(<cnp.ndarray> xs[j]))
    for d in range(ndim):
        dims[d] = 1
    for j in range(n):
        a = <cnp.ndarray> xs[j]
        shift = ndim - cnp.PyArray_NDIM(a)
        for d in range(shift, ndim):
            size = cnp.PyArray_DIM(a, d - shift)
            if size != 1:
                if dims[d] != 1 and dims[d] != size:
                    return -1
                dims[d] = size
    return ndim


# --- products -------------------------------------------------------------------------------------

cdef struct Stack:
    # Matrices of one shape, stored as rows `leading` elements apart, or as the transposes of such; one for each index
    # of the leading axes, whose strides are in bytes.
    char *data
    ptrdiff_t rows, columns, leading
    int flipped, axes
    ptrdiff_t dims[MG_MAX_DIMS]
    ptrdiff_t strides[MG_MAX_DIMS]


cdef bint stack_of(cnp.ndarray a, bint no_rows, bint no_columns, Stack *s) noexcept:
    """Describe the matrices along the last axes, of which a vector lacks the rows or the columns; False to decline."""
    cdef ptrdiff_t size = cnp.PyArray_ITEMSIZE(a), down = 0, along = 0
    cdef int d, last = cnp.PyArray_NDIM(a)
    if last < 2 - no_rows - no_columns:
        return False
    s.data = <char *> cnp.PyArray_DATA(a)
    s.rows = s.columns = 1
    if not no_columns:
        last -= 1
        s.columns, along = cnp.PyArray_DIM(a, last), cnp.PyArray_STRIDE(a, last)
    if not no_rows:
        last -= 1
        s.rows, down = cnp.PyArray_DIM(a, last), cnp.PyArray_STRIDE(a, last)
    s.axes = last
    for d in range(last):
        s.dims[d], s.strides[d] = cnp.PyArray_DIM(a, d), cnp.PyArray_STRIDE(a, d)
        if s.strides[d] % size:
            return False
    if s.columns <= 1:
        along = size
    if s.rows <= 1:
        down = max(s.columns, 1) * along
    if cnp.PyArray_SIZE(a) == 0:
        s.flipped, s.leading = 0, max(s.columns, 1)
    elif along == size and down >= s.columns * size and down % size == 0:
        s.flipped, s.leading = 0, down // size
    elif (down == size or s.rows == 1) and along >= s.rows * size and along % size == 0:
        s.flipped, s.leading = 1, along // size
    else:
        return False
    return True


cdef cnp.ndarray stacked(cnp.ndarray a, bint no_rows, bint no_columns, Stack *s):
    """The array that is described: `a`, or a packed copy where its strides suit no product."""
    if not stack_of(a, no_rows, no_columns, s):
        a = cnp.PyArray_GETCONTIGUOUS(a)
        stack_of(a, no_rows, no_columns, s)
    return a


cdef bint as_one(Stack *s, ptrdiff_t size) noexcept:
    """Put the rows of all matrices under each other, if they lie so; False to leave them as they are."""
    cdef ptrdiff_t rows = s.rows, leading = s.leading
    cdef int d
    if s.flipped:
        return False
    for d in range(s.axes - 1, -1, -1):
        if s.dims[d] == 1:
            continue
        if rows == 1:
            leading = s.strides[d] // size
            if leading < s.columns:
                return False
        elif s.strides[d] != rows * leading * size:
            return False
        rows *= s.dims[d]
    s.rows, s.leading, s.axes = rows, leading, 0
    return True


cdef void multiply(int kind, int ta, const Stack *a, int tb, const Stack *b, const Stack *c,
                   int accumulate) noexcept nogil:
    """Each matrix of c (+)= op(a) @ op(b), leading axes broadcast against each other; c is not flipped."""
    cdef ptrdiff_t m = a.columns if ta else a.rows, k = a.rows if ta else a.columns, n = b.rows if tb else b.columns
    cdef ptrdiff_t dims[MG_MAX_DIMS]
    cdef ptrdiff_t at[MG_MAX_DIMS]
    cdef ptrdiff_t steps[3][MG_MAX_DIMS]
    cdef const Stack *each[3]
    cdef char *p[3]
    cdef int axes = max(a.axes, b.axes, c.axes), d, j, own
    each[0], each[1], each[2] = a, b, c
    for d in range(axes):
        dims[d], at[d] = 1, 0
    for j in range(3):
        p[j] = each[j].data
        for d in range(axes):
            own = d - axes + each[j].axes
            steps[j][d] = 0
            if own >= 0 and each[j].dims[own] != 1:
                dims[d], steps[j][d] = each[j].dims[own], each[j].strides[own]
    for d in range(axes):
        if dims[d] == 0:
            return
    while True:
        if kind == 0:
            kernels.gemm_f32(ta ^ a.flipped, tb ^ b.flipped, m, n, k, <float *> p[0], a.leading, <float *> p[1],
                             b.leading, <float *> p[2], c.leading, accumulate)
        else:
            kernels.gemm_f64(ta ^ a.flipped, tb ^ b.flipped, m, n, k, <double *> p[0], a.leading, <double *> p[1],
                             b.leading, <double *> p[2], c.leading, accumulate)
        d = axes - 1
        while d >= 0:
            at[d] += 1
            for j in range(3):
                p[j] += steps[j][d]
            if at[d] < dims[d]:
                break
            for j in range(3):
                p[j] -= steps[j][d] * dims[d]
            at[d] = 0
            d -= 1
        if d < 0:
            return


cdef void run_product(int kind, int ta, const Stack *a, int tb, const Stack *b, const Stack *c,
                      int accumulate) noexcept:
    """The same; other threads may run Python meanwhile where it takes long."""
    cdef ptrdiff_t work = a.rows * a.columns * (b.rows if tb else b.columns)
    cdef int d
    for d in range(a.axes if a.axes > b.axes else b.axes):
        work *= a.dims[d] if a.axes > b.axes else b.dims[d]
    if work < LONG_PRODUCT:
        multiply(kind, ta, a, tb, b, c, accumulate)
    else:
        with nogil:
            multiply(kind, ta, a, tb, b, c, accumulate)


cdef cnp.ndarray matrices(PyObject *x, int kind):
    """The array, if it is one of a precision with at least one axis; None to decline."""
    if x == NULL or type(<object> x) is not np_ndarray:
        return None
    if precision(<cnp.ndarray> x) != kind or cnp.PyArray_NDIM(<cnp.ndarray> x) < 1:
        return None
    return <cnp.ndarray> x


cdef inline int axes_of(Node node, PyObject ***targets, int k, cnp.ndarray saved) noexcept:
    """How many axes operand k of a node has: its node knows where a gradient flows to it, else its saved array."""
    cdef Py_ssize_t *dims
    return operand_dims(node, k, &dims) if targets[k] != NULL else cnp.PyArray_NDIM(saved)


cdef int contribute(PyObject **slot, Node node, int k, bint no_rows, bint no_columns, int ta, Stack *a, int tb,
                    Stack *b, cnp.ndarray like, int kind) except -1:
    """Add op(a) @ op(b), summed over the leading axes that operand k lacks, to its slot."""
    cdef Py_ssize_t *dims
    cdef int axes = operand_dims(node, k, &dims), d, own, most = max(a.axes, b.axes), accumulate
    cdef bint whole = True
    cdef ptrdiff_t length
    cdef Stack c
    cdef cnp.ndarray out
    for d in range(most):                # counted from the last one
        length = a.dims[a.axes - 1 - d] if d < a.axes else 1
        if length == 1 and d < b.axes:
            length = b.dims[b.axes - 1 - d]
        own = axes - 3 - d + no_rows + no_columns
        whole = whole and length != 0 and (length == 1 or own >= 0 and dims[own] == length)
    out = target_for(slot, axes, <cnp.npy_intp *> dims, like, not whole, &accumulate)
    stack_of(out, no_rows, no_columns, &c)
    if most == 0:
        as_one(&c, cnp.PyArray_ITEMSIZE(out))
    run_product(kind, ta, a, tb, b, &c, accumulate)
    return 1


@cython.final
cdef class MatmulKernel(Kernel):
    """y = a @ b for matrices, vectors and stacks of matrices."""

    cdef object forward(self, PyObject **xs, int n, object params):
        cdef int kind = precision(<cnp.ndarray> xs[0]), d, axes
        cdef cnp.ndarray a = matrices(xs[0], kind), b = matrices(xs[1], kind), out
        cdef bint row, column
        cdef Stack sa, sb, sc
        cdef ptrdiff_t dims[MG_MAX_DIMS]
        cdef ptrdiff_t length
        if kind < 0 or a is None or b is None:
            return None
        row, column = cnp.PyArray_NDIM(a) == 1, cnp.PyArray_NDIM(b) == 1
        a, b = stacked(a, row, False, &sa), stacked(b, False, column, &sb)
        if sa.columns != sb.rows:
            return None                      # the page words the error
        axes = max(sa.axes, sb.axes)
        for d in range(axes):                # counted from the last one
            length = sa.dims[sa.axes - 1 - d] if d < sa.axes else 1
            if d < sb.axes and sb.dims[sb.axes - 1 - d] != 1:
                if length != 1 and length != sb.dims[sb.axes - 1 - d]:
                    return None
                length = sb.dims[sb.axes - 1 - d]
            dims[axes - 1 - d] = length
        d = axes
        if not row:
            dims[d] = sa.rows
            d += 1
        if not column:
            dims[d] = sb.columns
            d += 1
        out = empty(d, <cnp.npy_intp *> dims, a)
        stack_of(out, row, column, &sc)
        if sb.axes == 0 and sa.axes and as_one(&sa, cnp.PyArray_ITEMSIZE(a)):
            as_one(&sc, cnp.PyArray_ITEMSIZE(a))
        run_product(kind, 0, &sa, 0, &sb, &sc, 0)
        return out

    cdef int backward(self, Node node, PyObject **saved, PyObject **gs, PyObject ***targets) except -1:
        # g @ bᵀ and aᵀ @ g: the page's transposes of matmul, straight into the slots
        cdef cnp.ndarray g, a = None, b = None
        cdef Stack sg, sa, sb, rows
        cdef bint row, column
        cdef int kind
        cdef ptrdiff_t size
        if type(<object> gs[0]) is not np_ndarray or precision(<cnp.ndarray> gs[0]) < 0:
            return 0
        g = <cnp.ndarray> gs[0]
        kind, size = precision(g), cnp.PyArray_ITEMSIZE(g)
        if targets[0] != NULL:
            b = matrices(saved[1], kind)
            if b is None:
                return 0
        if targets[1] != NULL:
            a = matrices(saved[0], kind)
            if a is None:
                return 0
        row = axes_of(node, targets, 0, a) == 1
        column = axes_of(node, targets, 1, b) == 1
        g = stacked(g, row, column, &sg)
        if a is not None:
            a = stacked(a, row, False, &sa)
            rows = sg
            if sg.axes and axes_of(node, targets, 1, b) <= 2 and as_one(&rows, size) and not as_one(&sa, size):
                rows = sg
        if b is not None:
            b = stacked(b, False, column, &sb)
            if sb.axes == 0:
                as_one(&sg, size)
            contribute(targets[0], node, 0, row, False, 0, &sg, 1, &sb, g, kind)
        if a is not None:
            contribute(targets[1], node, 1, False, column, 1, &sa, 0, &rows, g, kind)
        return 1


@cython.final
cdef class AffineKernel(Kernel):
    """y = x @ weightᵀ + bias, x of any leading shape: the bias is laid out first and the product added to it."""

    cdef object forward(self, PyObject **xs, int n, object params):
        cdef int kind = precision(<cnp.ndarray> xs[0]), d, axes
        cdef cnp.ndarray x = matrices(xs[0], kind), w = matrices(xs[1], kind), b = matrices(xs[2], kind), out
        cdef Stack sx, sw, sy
        cdef ptrdiff_t dims[MG_MAX_DIMS]
        cdef PyObject *ys[1]
        if (kind < 0 or x is None or w is None or b is None or cnp.PyArray_NDIM(w) != 2 or cnp.PyArray_NDIM(b) != 1
                or cnp.PyArray_DIM(b, 0) != cnp.PyArray_DIM(w, 0)):
            return None
        axes = cnp.PyArray_NDIM(x)
        if cnp.PyArray_DIM(x, axes - 1) != cnp.PyArray_DIM(w, 1):
            return None
        x, w = stacked(x, axes == 1, False, &sx), stacked(w, False, False, &sw)
        for d in range(axes - 1):
            dims[d] = cnp.PyArray_DIM(x, d)
        dims[axes - 1] = sw.rows
        out = empty(axes, <cnp.npy_intp *> dims, x)
        ys[0] = <PyObject *> b
        if not run_nd(kernels.copy[kind], 1, axes, dims, ys, out, NULL, 0):
            return None
        stack_of(out, axes == 1, False, &sy)
        if sx.axes and as_one(&sx, cnp.PyArray_ITEMSIZE(x)):
            as_one(&sy, cnp.PyArray_ITEMSIZE(x))
        run_product(kind, 0, &sx, 1, &sw, &sy, 1)
        return out

    cdef int backward(self, Node node, PyObject **saved, PyObject **gs, PyObject ***targets) except -1:
        # g @ weight, gᵀ @ x, and g summed over its rows
        cdef cnp.ndarray g, x = None, w = None, out
        cdef Py_ssize_t *dims
        cdef int axes, kind, accumulate
        cdef bint row
        cdef ptrdiff_t size
        cdef Stack sg, sx, sw
        cdef PyObject *ys[1]
        if type(<object> gs[0]) is not np_ndarray or precision(<cnp.ndarray> gs[0]) < 0:
            return 0
        g = <cnp.ndarray> gs[0]
        kind, size = precision(g), cnp.PyArray_ITEMSIZE(g)
        if targets[0] != NULL:
            w = matrices(saved[1], kind)
            if w is None:
                return 0
        if targets[1] != NULL:
            x = matrices(saved[0], kind)
            if x is None:
                return 0
        row = cnp.PyArray_NDIM(g) == 1
        g = stacked(g, row, False, &sg)
        if not as_one(&sg, size) and sg.axes:
            g = cnp.PyArray_GETCONTIGUOUS(g)
            stack_of(g, row, False, &sg)
            as_one(&sg, size)
        if w is not None:
            w = stacked(w, False, False, &sw)
            contribute(targets[0], node, 0, row, False, 0, &sg, 0, &sw, g, kind)
        if x is not None:
            x = stacked(x, row, False, &sx)
            if not as_one(&sx, size) and sx.axes:
                x = cnp.PyArray_GETCONTIGUOUS(x)
                stack_of(x, row, False, &sx)
                as_one(&sx, size)
            contribute(targets[1], node, 1, False, False, 1, &sg, 0, &sx, g, kind)
        if targets[2] != NULL:
            axes = operand_dims(node, 2, &dims)
            out = target_for(targets[2], axes, <cnp.npy_intp *> dims, g, True, &accumulate)
            ys[0] = <PyObject *> g
            if not run_nd(kernels.copy[kind], 1, cnp.PyArray_NDIM(g), <ptrdiff_t *> cnp.PyArray_DIMS(g), ys, out,
                          NULL, 1):
                raise RuntimeError("an array with strides that are no multiple of its element size")
        return 1


# --- rows that integers choose --------------------------------------------------------------------

cdef bint are_rows(PyObject *numbers, ptrdiff_t rows, bint but, int64_t ignored) noexcept:
    """Whether this is a packed array of int64 in 0 to rows - 1 (or, with `but`, one other number)."""
    cdef const int64_t *at
    cdef ptrdiff_t i
    cdef cnp.ndarray index
    if numbers == NULL or type(<object> numbers) is not np_ndarray:
        return False
    index = <cnp.ndarray> numbers
    if cnp.PyArray_TYPE(index) != cnp.NPY_INT64 or not is_packed(index) or not cnp.PyArray_ISBEHAVED_RO(index):
        return False
    at = <const int64_t *> cnp.PyArray_DATA(index)
    for i in range(cnp.PyArray_SIZE(index)):
        if (at[i] < 0 or at[i] >= rows) and not (but and at[i] == ignored):
            return False
    return True


@cython.final
cdef class CrossEntropyKernel(Kernel):
    """Losses of packed rows of logits without class weights; everything else is left to the page."""

    cdef object forward(self, PyObject **xs, int n, object params):
        cdef cnp.ndarray x = <cnp.ndarray> xs[0], target = <cnp.ndarray> xs[1], losses, out
        cdef int kind = precision(x)
        cdef int64_t ignored = params["ignore_index"]
        cdef ptrdiff_t rows, classes, i, number = 0
        cdef double total = 0
        if (kind < 0 or cnp.PyArray_NDIM(x) != 2 or not is_packed(x) or params["weight"] is not None
                or not are_rows(xs[1], cnp.PyArray_DIM(x, 1), True, ignored) or cnp.PyArray_NDIM(target) != 1
                or cnp.PyArray_DIM(target, 0) != cnp.PyArray_DIM(x, 0)):
            return None
        rows, classes = cnp.PyArray_DIM(x, 0), cnp.PyArray_DIM(x, 1)
        losses = empty(1, cnp.PyArray_DIMS(target), x)
        with nogil:
            kernels.cross_entropy[kind](rows, classes, <char *> cnp.PyArray_DATA(x),
                                        <const int64_t *> cnp.PyArray_DATA(target), ignored,
                                        <char *> cnp.PyArray_DATA(losses))
        if params["reduction"] == "none":
            return losses
        for i in range(rows):
            total += (<float *> cnp.PyArray_DATA(losses))[i] if kind == 0 else (<double *> cnp.PyArray_DATA(losses))[i]
        if params["reduction"] == "mean":
            number = counted(target, ignored)
            total = total / number if number else NAN
        out = empty(0, NULL, x)
        place_number(total, kind, <double *> cnp.PyArray_DATA(out))
        return out

    cdef int backward(self, Node node, PyObject **saved, PyObject **gs, PyObject ***targets) except -1:
        cdef cnp.ndarray x, target, g, out
        cdef object params = <object> node.params
        cdef int64_t ignored = params["ignore_index"]
        cdef ptrdiff_t step
        cdef double scale = 1
        cdef int kind
        if targets[0] == NULL or params["weight"] is not None or saved[0] == NULL:
            return 0
        if type(<object> gs[0]) is not np_ndarray or type(<object> saved[0]) is not np_ndarray:
            return 0
        x, g = <cnp.ndarray> saved[0], <cnp.ndarray> gs[0]
        kind = precision(x)
        if (kind < 0 or precision(g) != kind or not is_packed(x) or cnp.PyArray_NDIM(x) != 2
                or not are_rows(saved[1], cnp.PyArray_DIM(x, 1), True, ignored)):
            return 0
        target = <cnp.ndarray> saved[1]
        step = cnp.PyArray_STRIDE(g, 0) // cnp.PyArray_ITEMSIZE(g) if cnp.PyArray_NDIM(g) else 0
        if params["reduction"] == "mean":
            scale = 1.0 / max(counted(target, ignored), 1)
        out = empty_like(x)
        with nogil:
            kernels.cross_entropy_gradient[kind](
                cnp.PyArray_DIM(x, 0), cnp.PyArray_DIM(x, 1), <char *> cnp.PyArray_DATA(x),
                <const int64_t *> cnp.PyArray_DATA(target), ignored, <char *> cnp.PyArray_DATA(g), step, scale,
                <char *> cnp.PyArray_DATA(out))
        return deliver(targets[0], out, kind)


cdef ptrdiff_t counted(cnp.ndarray target, int64_t ignored) noexcept:
    """How many targets count."""
    cdef const int64_t *at = <const int64_t *> cnp.PyArray_DATA(target)
    cdef ptrdiff_t i, number = 0
    for i in range(cnp.PyArray_SIZE(target)):
        number += at[i] != ignored
    return number


cdef int deliver(PyObject **slot, cnp.ndarray value, int kind) except -1:
    """Give a slot a new packed array that nobody else holds, or add it to what is there."""
    cdef cnp.ndarray out
    cdef int accumulate
    cdef char *p[2]
    cdef ptrdiff_t s[2]
    if slot[0] == NULL:
        fill(slot, value)
        return 1
    out = target_for(slot, cnp.PyArray_NDIM(value), cnp.PyArray_DIMS(value), value, False, &accumulate)
    p[0], p[1] = <char *> cnp.PyArray_DATA(value), <char *> cnp.PyArray_DATA(out)
    s[0] = s[1] = 1
    run_flat(kernels.copy[kind], p, s, cnp.PyArray_SIZE(value), accumulate)
    return 1


@cython.final
cdef class EmbeddingKernel(Kernel):
    """Rows of a packed matrix; backward adds rows of the cotangent into the matrix's own slot."""

    cdef object forward(self, PyObject **xs, int n, object params):
        cdef cnp.ndarray weight = <cnp.ndarray> xs[0], index = <cnp.ndarray> xs[1], out
        cdef int kind = precision(weight), d, axes
        cdef ptrdiff_t dims[MG_MAX_DIMS]
        if (kind < 0 or cnp.PyArray_NDIM(weight) != 2 or not is_packed(weight)
                or not are_rows(xs[1], cnp.PyArray_DIM(weight, 0), False, 0)):
            return None
        axes = cnp.PyArray_NDIM(index)
        if axes + 1 > cnp.NPY_MAXDIMS:
            return None
        for d in range(axes):
            dims[d] = cnp.PyArray_DIM(index, d)
        dims[axes] = cnp.PyArray_DIM(weight, 1)
        out = empty(axes + 1, <cnp.npy_intp *> dims, weight)
        move_rows(kind, index, cnp.PyArray_DIM(weight, 1), <char *> cnp.PyArray_DATA(weight),
                  <char *> cnp.PyArray_DATA(out), False)
        return out

    cdef int backward(self, Node node, PyObject **saved, PyObject **gs, PyObject ***targets) except -1:
        cdef cnp.ndarray g, out
        cdef Py_ssize_t *dims
        cdef int kind, accumulate
        if targets[0] == NULL or type(<object> gs[0]) is not np_ndarray:
            return 0
        g = <cnp.ndarray> gs[0]
        kind = precision(g)
        if kind < 0 or operand_dims(node, 0, &dims) != 2 or not are_rows(saved[1], dims[0], False, 0):
            return 0
        if not is_packed(g):
            g = cnp.PyArray_GETCONTIGUOUS(g)
        out = target_for(targets[0], 2, <cnp.npy_intp *> dims, g, True, &accumulate)
        move_rows(kind, <cnp.ndarray> saved[1], dims[1], <char *> cnp.PyArray_DATA(out), <char *> cnp.PyArray_DATA(g),
                  True)
        return 1


cdef void move_rows(int kind, cnp.ndarray index, ptrdiff_t length, char *table, char *rows, bint add) noexcept:
    """Copy rows of a table into rows one after the other, or (with `add`) add these to those."""
    cdef const int64_t *at = <const int64_t *> cnp.PyArray_DATA(index)
    cdef ptrdiff_t i, n = cnp.PyArray_SIZE(index), size = length * (4 if kind == 0 else 8)
    cdef char *p[2]
    cdef ptrdiff_t s[2]
    s[0] = s[1] = 1
    with nogil:
        for i in range(n):
            p[0], p[1] = table + at[i] * size, rows + i * size
            if add:
                p[0], p[1] = p[1], p[0]
            kernels.copy[kind](p, s, length, add)


@cython.final
cdef class GetitemKernel(Kernel):
    """Integers and slices: a view forward; backward adds into the operand's own slot, so T slices cost T, not T²."""

    cdef object forward(self, PyObject **xs, int n, object params):
        cdef object index = params["index"]
        if not basic(index):
            return None
        out = (<object> xs[0])[index]
        return out if type(out) is np_ndarray else None

    cdef int backward(self, Node node, PyObject **saved, PyObject **gs, PyObject ***targets) except -1:
        cdef object index = (<object> node.params)["index"], part
        cdef int accumulate
        cdef Py_ssize_t *dims
        cdef int axes
        cdef cnp.ndarray out
        if type(<object> gs[0]) is not np_ndarray or targets[0] == NULL or not basic(index):
            return 0
        axes = operand_dims(node, 0, &dims)
        if targets[0][0] != NULL and type(<object> targets[0][0]) is not np_ndarray:
            return 0
        out = target_for(targets[0], axes, <cnp.npy_intp *> dims, <cnp.ndarray> gs[0], True,
                         &accumulate)
        # The ellipsis keeps a single element an array, which can be added to.
        part = (<object> out)[index if type(index) is tuple and Ellipsis in index else
                              (*index, Ellipsis) if type(index) is tuple else (index, Ellipsis)]
        np_add(part, <object> gs[0], part)
        return 1


cdef object np_add = np.add


# --- recurrent layers -----------------------------------------------------------------------------

cdef size_t reserved_bytes = 0


def reserved():
    """Return how many bytes recurrent layers keep for backward passes that may follow."""
    return reserved_bytes


@cython.final
cdef class Reserve:
    """What the forward pass of a recurrent layer keeps for backward; returned to the pool with its last reference."""
    cdef void *room
    cdef size_t size

    def __cinit__(self, size_t size):
        global reserved_bytes
        self.room = mg_workspace_take(size)
        if self.room == NULL:
            raise MemoryError
        self.size = size
        reserved_bytes += size

    def __dealloc__(self):
        global reserved_bytes
        if self.room != NULL:
            mg_workspace_give(self.room)
            reserved_bytes -= self.size


cdef struct Form:
    # What a call's parameters say.
    bint states, bias, projection, peepholes, batch_first, cells
    int per_way             # operands of one direction


cdef inline bint says(object params, str word) except -1:
    cdef PyObject *found = PyDict_GetItem(params, word)
    return found != NULL and <object> found is True


cdef inline char *data_at(cnp.ndarray a, ptrdiff_t elements) noexcept:
    return <char *> cnp.PyArray_DATA(a) + elements * cnp.PyArray_ITEMSIZE(a)


cdef inline bint in_rows(cnp.ndarray a) noexcept:
    """Whether the last axis has no gaps and the others step by whole elements."""
    cdef int d, last = cnp.PyArray_NDIM(a) - 1
    cdef ptrdiff_t size = cnp.PyArray_ITEMSIZE(a)
    if cnp.PyArray_STRIDE(a, last) != size and cnp.PyArray_DIM(a, last) > 1:
        return False
    for d in range(last):
        if cnp.PyArray_STRIDE(a, d) % size:
            return False
    return True


cdef inline bint has_shape(cnp.ndarray a, int ndim, ptrdiff_t first, ptrdiff_t second) noexcept:
    return (cnp.PyArray_NDIM(a) == ndim and cnp.PyArray_DIM(a, 0) == first
            and (ndim == 1 or cnp.PyArray_DIM(a, 1) == second))


cdef inline void strides_of(cnp.ndarray a, bint batched, bint batch_first, ptrdiff_t *over_t,
                            ptrdiff_t *over_n) noexcept:
    cdef ptrdiff_t size = cnp.PyArray_ITEMSIZE(a)
    over_t[0] = cnp.PyArray_STRIDE(a, 1 if batch_first else 0) // size
    over_n[0] = cnp.PyArray_STRIDE(a, 0 if batch_first else 1) // size if batched else 0


@cython.final
cdef class RecurrentKernel(Kernel):
    """A layer of a recurrent network over a sequence, or one step of it.

    The operands are x, then for each direction h_0 (and c_0), weight_ih, weight_hh, and what the parameters say there
    is of bias_ih, bias_hh, weight_hr and weight_ph; the results y, h_n (and c_n, and the cells of all steps). A step
    has the results h and c instead.
    """
    cdef int cell, gates, n_states
    cdef bint whole          # a layer, not a step

    cdef int read(self, PyObject **xs, int n, object params, mg_layer *layer, Form *form, list hold) except -1:
        """Describe a call to the kernels; 0 where an operand is not what they take. `hold` keeps copies alive."""
        cdef cnp.ndarray x, w, a
        cdef mg_direction *way
        cdef int kind, k, d, at, ways
        cdef ptrdiff_t steps, rows, size, outputs
        cdef bint batched
        cdef object value
        form.states = not self.whole or says(params, "states")
        form.bias, form.projection = says(params, "bias"), says(params, "projection")
        form.peepholes, form.cells = says(params, "peepholes"), says(params, "cells")
        form.batch_first = says(params, "batch_first")
        ways = 2 if says(params, "bidirectional") else 1
        form.per_way = (self.n_states if form.states else 0) + 2 + 2 * form.bias + form.projection + form.peepholes
        if n != 1 + ways * form.per_way:
            return 0
        kind = -1
        for k in range(n):
            if type(<object> xs[k]) is not np_ndarray:
                return 0
            a = <cnp.ndarray> xs[k]
            if not cnp.PyArray_ISNOTSWAPPED(a):
                return 0
            at = cnp.PyArray_TYPE(a)
            if at != cnp.NPY_FLOAT32 and at != cnp.NPY_FLOAT64 or kind >= 0 and at != kind:
                return 0
            kind = at
        x = <cnp.ndarray> xs[0]
        batched = cnp.PyArray_NDIM(x) == (3 if self.whole else 2)
        if not batched and cnp.PyArray_NDIM(x) != (2 if self.whole else 1):
            return 0
        form.batch_first = form.batch_first and batched
        if not cnp.PyArray_ISALIGNED(x) or not in_rows(x):
            x = packed(x, hold)
        layer.cell, layer.directions = self.cell, ways
        if self.cell == MG_CELL_TANH and params["nonlinearity"] != "tanh":
            if params["nonlinearity"] != "relu":
                return 0
            layer.cell = MG_CELL_RELU
        layer.x = cnp.PyArray_DATA(x)
        if self.whole:
            strides_of(x, batched, form.batch_first, &layer.x_t, &layer.x_n)
            layer.steps = cnp.PyArray_DIM(x, 1 if form.batch_first else 0)
            layer.batch = cnp.PyArray_DIM(x, 0 if form.batch_first else 1) if batched else 1
        else:
            layer.steps, layer.x_t = 1, 0
            layer.batch = cnp.PyArray_DIM(x, 0) if batched else 1
            layer.x_n = cnp.PyArray_STRIDE(x, 0) // cnp.PyArray_ITEMSIZE(x) if batched else 0
        layer.input = cnp.PyArray_DIM(x, cnp.PyArray_NDIM(x) - 1)
        if layer.steps == 0 or layer.input == 0:
            return 0
        for d in range(ways):
            way = &layer.way[d]
            way.reverse = d
            at = 1 + d * form.per_way + (self.n_states if form.states else 0)
            w = packed(<cnp.ndarray> xs[at], hold)
            if cnp.PyArray_NDIM(w) != 2 or cnp.PyArray_DIM(w, 1) != layer.input:
                return 0
            rows = cnp.PyArray_DIM(w, 0)
            if rows == 0 or rows % self.gates or d and rows != self.gates * layer.hidden:
                return 0
            layer.hidden = rows // self.gates
            way.w_ih = cnp.PyArray_DATA(w)
            w = packed(<cnp.ndarray> xs[at + 1], hold)
            if cnp.PyArray_NDIM(w) != 2:
                return 0
            outputs = cnp.PyArray_DIM(w, 1)
            if (not has_shape(w, 2, rows, outputs) or d and outputs != layer.output
                    or not form.projection and outputs != layer.hidden):
                return 0
            layer.output = outputs
            way.w_hh = cnp.PyArray_DATA(w)
            at += 2
            if form.bias:
                for k in range(2):
                    w = packed(<cnp.ndarray> xs[at + k], hold)
                    if not has_shape(w, 1, rows, 0):
                        return 0
                    if k:
                        way.b_hh = cnp.PyArray_DATA(w)
                    else:
                        way.b_ih = cnp.PyArray_DATA(w)
                at += 2
            if form.projection:
                w = packed(<cnp.ndarray> xs[at], hold)
                if not has_shape(w, 2, outputs, layer.hidden):
                    return 0
                way.w_hr = cnp.PyArray_DATA(w)
                at += 1
            if form.peepholes:
                w = packed(<cnp.ndarray> xs[at], hold)
                if not has_shape(w, 1, 3 * layer.hidden, 0):
                    return 0
                way.w_ph = cnp.PyArray_DATA(w)
            if form.states:
                at = 1 + d * form.per_way
                for k in range(self.n_states):
                    size = layer.hidden if k else outputs
                    a = packed(<cnp.ndarray> xs[at + k], hold)
                    if not (has_shape(a, 2, layer.batch, size) if batched else has_shape(a, 1, size, 0)):
                        return 0
                    if k:
                        way.c_0 = cnp.PyArray_DATA(a)
                    else:
                        way.h_0 = cnp.PyArray_DATA(a)
        if self.whole:
            value = params["recompute"]
            layer.recompute = value
            value = params["lengths"]
            if value is not None:
                if (type(value) is not np_ndarray or cnp.PyArray_TYPE(<cnp.ndarray> value) != cnp.NPY_INTP
                        or not cnp.PyArray_ISBEHAVED_RO(<cnp.ndarray> value) or not is_packed(<cnp.ndarray> value)
                        or not has_shape(<cnp.ndarray> value, 1, layer.batch, 0)):
                    return 0
                layer.lengths = <const ptrdiff_t *> cnp.PyArray_DATA(<cnp.ndarray> value)
                for steps in range(layer.batch):
                    if not 0 <= layer.lengths[steps] <= layer.steps:
                        return 0
        return 1

    cdef object forward(self, PyObject **xs, int n, object params):
        return self.compute(xs, n, params, NULL)

    cdef object forward_kept(self, PyObject **xs, int n, object params, PyObject **reserve):
        return self.compute(xs, n, params, reserve)

    cdef object compute(self, PyObject **xs, int n, object params, PyObject **reserve):
        cdef mg_layer layer
        cdef Form form
        cdef list hold = []
        cdef cnp.ndarray x = <cnp.ndarray> xs[0], y, h_n, c_n = None, cells = None
        cdef Reserve room = None
        cdef cnp.npy_intp dims[3]
        cdef int kind, axes, d, failed
        cdef size_t size
        memset(&layer, 0, sizeof(layer))
        if not self.read(xs, n, params, &layer, &form, hold):
            return None
        kind = 0 if cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT32 else 1
        axes = cnp.PyArray_NDIM(x)
        for d in range(axes):
            dims[d] = cnp.PyArray_DIM(x, d)
        dims[axes - 1] = layer.directions * layer.output
        y = empty(axes, dims, x)
        if self.whole:
            for d in range(layer.directions):
                layer.way[d].y = data_at(y, d * layer.output)
                strides_of(y, axes == 3, form.batch_first, &layer.way[d].y_t, &layer.way[d].y_n)
            if form.cells:
                dims[axes - 1] = layer.directions * layer.hidden
                cells = empty(axes, dims, x)
                for d in range(layer.directions):
                    layer.way[d].cells = data_at(cells, d * layer.hidden)
                    strides_of(cells, axes == 3, form.batch_first, &layer.way[d].cells_t, &layer.way[d].cells_n)
            dims[0] = layer.directions
            if axes == 3:
                dims[1] = layer.batch
            dims[axes - 1] = layer.output
            h_n = empty(axes, dims, x)
            for d in range(layer.directions):
                layer.way[d].h_n = data_at(h_n, d * layer.batch * layer.output)
        else:
            h_n = y
            layer.way[0].y, layer.way[0].y_n = cnp.PyArray_DATA(y), layer.output
        if self.n_states == 2:
            dims[axes - 1] = layer.hidden
            c_n = empty(axes, dims, x)
            for d in range(layer.directions):
                layer.way[d].c_n = data_at(c_n, d * layer.batch * layer.hidden)
        if reserve != NULL:
            layer.keep = 1
            size = kernels.recurrent_reserve[kind](&layer)
            # A reserve without a byte still says that the kernel ran.
            room = Reserve(size if size else 1)
            layer.reserve = room.room
        with nogil:
            failed = kernels.recurrent_forward[kind](&layer)
        if failed:
            raise MemoryError
        if reserve != NULL:
            Py_INCREF(room)
            reserve[0] = <PyObject *> room
        if not self.whole:
            return (y, c_n) if self.n_states == 2 else (y,)
        if self.n_states == 1:
            return y, h_n
        return (y, h_n, c_n, cells) if form.cells else (y, h_n, c_n)

    cdef int backward(self, Node node, PyObject **saved, PyObject **gs, PyObject ***targets) except -1:
        cdef mg_layer layer
        cdef Form form
        cdef list hold = []
        cdef object params, reserve
        cdef cnp.ndarray x, y, g
        cdef mg_direction *way
        cdef int kind, d, j
        cdef bint batched
        if node.reserve == NULL or saved[0] == NULL:
            return 0
        memset(&layer, 0, sizeof(layer))
        params, reserve = <object> node.params, <object> node.reserve
        if type(reserve) is not Reserve or not self.read(saved, node.n_in, params, &layer, &form, hold):
            return 0
        if layer.batch == 0:
            return 0
        x, y = <cnp.ndarray> saved[0], <cnp.ndarray> saved[node.n_in]
        kind = 0 if cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT32 else 1
        for j in range(node.n_out):
            if gs[j] != NULL and (type(<object> gs[j]) is not np_ndarray or precision(<cnp.ndarray> gs[j]) != kind):
                return 0
        batched = cnp.PyArray_NDIM(x) == (3 if self.whole else 2)
        layer.keep, layer.reserve = 1, (<Reserve> reserve).room
        for d in range(layer.directions):
            way = &layer.way[d]
            way.y = data_at(y, d * layer.output)
            if not self.whole:
                way.y_n = layer.output
                if gs[0] != NULL:
                    way.gh_n = cnp.PyArray_DATA(packed(<cnp.ndarray> gs[0], hold))
                if self.n_states == 2 and gs[1] != NULL:
                    way.gc_n = cnp.PyArray_DATA(packed(<cnp.ndarray> gs[1], hold))
                continue
            strides_of(y, batched, form.batch_first, &way.y_t, &way.y_n)
            if gs[0] != NULL:
                g = <cnp.ndarray> gs[0]
                g = g if in_rows(g) else packed(g, hold)
                way.gy = data_at(g, d * layer.output)
                strides_of(g, batched, form.batch_first, &way.gy_t, &way.gy_n)
            if gs[1] != NULL:
                way.gh_n = data_at(packed(<cnp.ndarray> gs[1], hold), d * layer.batch * layer.output)
            if self.n_states == 2 and gs[2] != NULL:
                way.gc_n = data_at(packed(<cnp.ndarray> gs[2], hold), d * layer.batch * layer.hidden)
            if form.cells and gs[3] != NULL:
                g = <cnp.ndarray> gs[3]
                g = g if in_rows(g) else packed(g, hold)
                way.gcells = data_at(g, d * layer.hidden)
                strides_of(g, batched, form.batch_first, &way.gcells_t, &way.gcells_n)
        return self.pull(node, x, &layer, &form, kind, batched, targets)

    cdef int pull(self, Node node, cnp.ndarray x, mg_layer *layer, Form *form, int kind, bint batched,
                  PyObject ***targets) except -1:
        """Run backward, its results into the targets."""
        cdef PyObject *apart[MG_RECURRENT_OPERANDS]
        cdef PyObject **slot
        cdef cnp.ndarray out
        cdef mg_direction *way
        cdef Py_ssize_t *dims
        cdef void *place
        cdef int k, j, d, at, axes, adds, failed
        for k in range(node.n_in):
            apart[k] = NULL
        try:
            for k in range(node.n_in):
                if targets[k] == NULL:
                    continue
                slot = targets[k]
                for j in range(k):
                    if targets[j] == slot:
                        # One tensor in two places: the kernel may write both at once.
                        slot = &apart[k]
                        break
                axes = operand_dims(node, k, &dims)
                out = target_for(slot, axes, <cnp.npy_intp *> dims, x, False, &adds)
                place = cnp.PyArray_DATA(out)
                if k == 0:
                    layer.dx, layer.dx_adds = place, adds
                    if self.whole:
                        strides_of(out, batched, form.batch_first, &layer.dx_t, &layer.dx_n)
                    else:
                        layer.dx_n = layer.input
                    continue
                d = (k - 1) // form.per_way
                at = (k - 1) - d * form.per_way
                way = &layer.way[d]
                # Where the operand stands in the full order: h_0, c_0, w_ih, w_hh, b_ih, b_hh, w_hr, w_ph.
                if not form.states:
                    at += 2
                elif self.n_states == 1 and at > 0:
                    at += 1
                if not form.bias and at > 3:
                    at += 2
                if not form.projection and at > 5:
                    at += 1
                if at == 0:
                    way.dh_0 = place
                elif at == 1:
                    way.dc_0 = place
                elif at == 2:
                    way.dw_ih = place
                elif at == 3:
                    way.dw_hh = place
                elif at == 4:
                    way.db_ih = place
                elif at == 5:
                    way.db_hh = place
                elif at == 6:
                    way.dw_hr = place
                else:
                    way.dw_ph = place
                if adds:
                    way.adds |= 1 << at
            with nogil:
                failed = kernels.recurrent_backward[kind](layer)
            if failed:
                raise MemoryError
            for k in range(node.n_in):
                if apart[k] != NULL:
                    np_add(<object> targets[k][0], <object> apart[k], <object> targets[k][0])
        finally:
            for k in range(node.n_in):
                if apart[k] != NULL:
                    Py_DECREF(<object> apart[k])
        return 1


cdef inline cnp.ndarray packed(cnp.ndarray a, list hold):
    """The array, or a copy of it without gaps that `hold` keeps."""
    if is_packed(a) and cnp.PyArray_ISALIGNED(a):
        return a
    a = cnp.PyArray_GETCONTIGUOUS(a) if not is_packed(a) else a.copy()
    hold.append(a)
    return a


def recurrent_kernel(str unit, bint whole):
    """Make the kernel of a whole layer, or of a step: of "rnn", "gru" or "lstm"."""
    cdef RecurrentKernel kernel = RecurrentKernel.__new__(RecurrentKernel)
    cells = {"rnn": (MG_CELL_TANH, 1), "gru": (MG_CELL_GRU, 3), "lstm": (MG_CELL_LSTM, 4)}
    kernel.cell, kernel.gates = cells[unit]
    kernel.n_states, kernel.whole = 2 if unit == "lstm" else 1, whole
    return kernel


# --- optimisers -----------------------------------------------------------------------------------

@cython.final
cdef class UpdateKernel:
    """An update of the page: one pass over a parameter, its gradient and its buffers."""
    cdef const mg_update *entry

    def __call__(self, arrays, numbers):
        """Change the arrays in place; False, and nothing done, for arrays that no kernel takes."""
        cdef const mg_update *e = self.entry
        cdef char *p[MG_MAX_ARGS]
        cdef double values[2 * MG_MAX_ARGS]
        cdef cnp.ndarray first, a
        cdef int j, kind
        cdef ptrdiff_t n
        if type(arrays[0]) is not np_ndarray:
            return False
        first = <cnp.ndarray> arrays[0]
        kind = precision(first)
        for j in range(e.n_arrays):
            if type(arrays[j]) is not np_ndarray:
                return False
            a = <cnp.ndarray> arrays[j]
            # The gradient, which is only read, is the second one.
            if (kind < 0 or precision(a) != kind or not is_packed(a) or not same_shape(a, first)
                    or j != 1 and not cnp.PyArray_ISWRITEABLE(a)):
                return False
            p[j] = <char *> cnp.PyArray_DATA(a)
        for j in range(e.n_params):
            values[j] = numbers[j]
        n = cnp.PyArray_SIZE(first)
        if n < RELEASE:
            e.run[kind](p, values, n)
        else:
            with nogil:
                e.run[kind](p, values, n)
        return True


def update_kernels():
    """Return the kernels of all updates by name."""
    cdef const mg_update *u = kernels.updates
    cdef UpdateKernel kernel
    found = {}
    while u.name != NULL:
        kernel = UpdateKernel.__new__(UpdateKernel)
        kernel.entry = u
        found[u.name.decode()] = kernel
        u += 1
    return found


def sum_squares(x):
    """Sum the squares of an array's elements in float64; None for an array that no kernel takes."""
    cdef cnp.ndarray a
    cdef int kind
    cdef ptrdiff_t n
    cdef double total
    if type(x) is not np_ndarray:
        return None
    a = <cnp.ndarray> x
    kind = precision(a)
    if kind < 0 or not is_packed(a):
        return None
    n = cnp.PyArray_SIZE(a)
    with nogil:
        total = kernels.sum_squares[kind](<const char *> cnp.PyArray_DATA(a), n)
    return total


cdef bint basic(object index):
    cdef object part
    if type(index) is int or type(index) is slice:
        return True
    if type(index) is not tuple:
        return False
    for part in <tuple> index:
        if type(part) is not int and type(part) is not slice and part is not None and part is not Ellipsis:
            return False
    return True


def connect(page):
    """Give the records of the page their compiled kernels."""
    cdef const mg_elementwise *e = kernels.elementwise
    cdef ElementwiseKernel kernel
    while e.name != NULL:
        op = page.records.get(e.name.decode())
        if op is not None:
            kernel = ElementwiseKernel.__new__(ElementwiseKernel)
            kernel.entry = e
            kernel.params = tuple(op.params)
            op.compiled = kernel
        e += 1
    for name, kind in (("matmul", MatmulKernel), ("affine", AffineKernel), ("getitem", GetitemKernel),
                       ("cross_entropy", CrossEntropyKernel), ("embedding", EmbeddingKernel)):
        op = page.records.get(name)
        if op is not None:
            op.compiled = kind()
