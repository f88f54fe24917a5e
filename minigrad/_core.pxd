# What the compiled array lane (_cpu.pyx) sees of the heart.
from cpython.object cimport PyObject


cdef enum:
    INLINE_OPERANDS = 3      # more operands, or more dimensions, move to the C heap
    INLINE_DIMS = 4
    SAVES_RESULT = 1 << 30   # bits of OpBase.need: the rule names y …
    SAVES_ALL = 1 << 29      # … or every operand (ops with any number of them)


cdef class Extra:
    """What few nodes have: a gradient that is kept, hooks, a name."""
    cdef object grad
    cdef dict hooks
    cdef object shapes
    cdef object name


cdef class Node:
    cdef long long number            # creation number: a topological order, and the clock of in-place changes
    cdef PyObject *op                # OpBase, owned
    cdef PyObject *params            # dict, owned, or NULL
    cdef PyObject *scope             # str, owned, or NULL
    cdef PyObject *reserve           # what a kernel's forward kept for its backward, owned, or NULL
    cdef PyObject **parents          # n_in Nodes, owned; NULL where no gradient flows
    cdef PyObject **saved            # n_in operands' arrays, then the results'; owned; NULL where no rule needs them
    cdef int *outs                   # which result of the parent the operand was
    # Shape of the result; of several results, for each its number of axes and room for the most axes (ndim) of any.
    cdef Py_ssize_t *dims
    cdef int n_in, n_out, ndim, flags
    cdef long long mark              # the sweep that found this node last …
    cdef Py_ssize_t place            # … and where it stands there; both are read before any Python code can run
    cdef Extra extra
    cdef PyObject *_parents[INLINE_OPERANDS]
    cdef PyObject *_saved[INLINE_OPERANDS + 1]
    cdef int _outs[INLINE_OPERANDS]
    cdef Py_ssize_t _dims[INLINE_DIMS]


cdef inline int operand_dims(Node node, int k, Py_ssize_t **dims) noexcept:
    """Shape of an operand that a gradient flows to: its producer's result, or one of several."""
    cdef Node parent = <Node> node.parents[k]
    cdef Py_ssize_t *entry
    if parent.n_out == 1:
        dims[0] = parent.dims
        return parent.ndim
    entry = parent.dims + node.outs[k] * (parent.ndim + 1)
    dims[0] = entry + 1
    return <int> entry[0]


cdef class Kernel:
    """One op on the compiled lane. Both methods may decline (None, 0): the array lane then does the work."""
    cdef object forward(self, PyObject **xs, int n, object params)
    # The same where the call is recorded; what backward needs beside operands and results is put into reserve, owned.
    cdef object forward_kept(self, PyObject **xs, int n, object params, PyObject **reserve)
    # saved: what the node saved, held by the caller. gs: cotangents, one per result. targets[k]: the slot that takes
    # operand k's contribution, or NULL.
    cdef int backward(self, Node node, PyObject **saved, PyObject **gs, PyObject ***targets) except -1


cdef class Lane:
    """What the heart asks of the arrays that the compiled lane owns."""
    cdef int shape(self, object data, Py_ssize_t **dims) except -1
    cdef object scalar(self, object value, object like)
    cdef int add(self, PyObject **slot, object more) except -1
    cdef bint exclusive(self, PyObject *data)
    cdef bint uniform(self, PyObject **xs, int n)


cdef class OpBase:
    cdef readonly str name
    cdef public Kernel compiled
    cdef readonly int arity          # -1: any number
    cdef bint plain                  # no parameters: a call needs no binding
    cdef unsigned int *need          # per operand: bits of the operands its rule names, SAVES_RESULT for y
    cdef unsigned int differentiable  # bit per operand
    cdef bint frees_params           # backward releases the parameters too: they hold what a user's Function saved


cdef class TensorBase:
    cdef object _data
    cdef Node _node
    cdef int _out
    cdef object _name
    cdef object __weakref__
