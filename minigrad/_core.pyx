# cython: c_api_binop_methods=True
"""The heart: tensors' base, nodes, tapes, recording, the reverse sweep and the forward push. Knows no array library.

            forward, creation numbers grow                 reverse sweep: a loop over falling creation numbers
        x ──► [#3 matmul] ──► [#4 tanh] ──► [#5 mul] ──► E          slots[operand] += rule(g, what the node saved)
        W ──►      │ saved: x, W    │ saved: y   │ saved: a, b

A node points at its parents only, operand by operand (``a * a`` has two edges), and leaf nodes hold ``.grad``: the
graph owns no tensor, has no cycles, and is freed by reference. A :class:`Tape` is an observer on top of it.
"""
cimport cython
from cpython.object cimport PyObject, PyTypeObject, PyObject_TypeCheck, Py_EQ, Py_GT, Py_LE, Py_LT, Py_NE
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdlib cimport calloc, free, malloc, qsort, realloc
from libc.string cimport memcpy

import re
import weakref

from .errors import DTypeError, GraphError, MinigradError, UsageError

cdef extern from *:
    """
    typedef struct {
        int recording;        /* 0 inside no_grad */
        PyObject *scope;      /* str or NULL */
        PyObject *tapes;      /* list of active tapes or NULL */
    } mg_thread;
    static _Thread_local mg_thread mg_here = {1, NULL, NULL};
    """
    ctypedef struct mg_thread:
        int recording
        PyObject *scope
        PyObject *tapes
    mg_thread mg_here

cdef extern from "Python.h":
    void PyObject_GC_UnTrack(PyObject *)
    void PyObject_GC_Track(PyObject *)
    int PyObject_GC_IsTracked(PyObject *)
    Py_ssize_t Py_REFCNT(PyObject *)
    void Py_XINCREF(PyObject *)
    PyTypeObject *Py_TYPE(PyObject *)

cdef enum:
    LEAF = 1          # holds .grad; has no parents
    RETAIN = 2        # keep the gradient of this interior node as well
    FREED = 4         # a sweep released what the rules need
    WATCHED = 8       # a tape saw it: keep what the rules need, because somebody wants to look
    WANTED = 1 << 28  # bit of the saving mask: some operand needs a gradient at all

cdef long long clock = 0            # creation numbers, stamped on nodes and on in-place changes
cdef long long last_change = 0
cdef long long sweeps = 0
cdef Lane lane = None                # the compiled lane …
cdef PyTypeObject *lane_type = NULL  # … owns exactly this array type
cdef object tensor_type = None
cdef dict changes = {}  # id(owner of memory) -> [weak reference, clock of its last change, number of changes]
cdef list operators = [None] * 16


# --- nodes ----------------------------------------------------------------------------------------

cdef PyObject **grave = NULL
cdef Py_ssize_t n_grave = 0, grave_room = 0
cdef bint digging = False


cdef void bury(PyObject *node) noexcept:
    """Give up one reference to a node; a chain of any length is freed by this loop, not by recursion."""
    global n_grave, grave_room, grave, digging
    cdef PyObject **room
    if Py_REFCNT(node) > 1:
        Py_DECREF(<object> node)
        return
    if n_grave == grave_room:
        room = <PyObject **> realloc(grave, (2 * grave_room + 64) * sizeof(PyObject *))
        if room == NULL:               # out of memory while freeing memory: recursion is the last resort
            Py_DECREF(<object> node)
            return
        grave, grave_room = room, 2 * grave_room + 64
    grave[n_grave] = node
    n_grave += 1
    if not digging:
        digging = True
        while n_grave:
            n_grave -= 1
            Py_DECREF(<object> grave[n_grave])
        digging = False


cdef inline void drop(PyObject **slot) noexcept:
    cdef PyObject *held = slot[0]
    if held != NULL:
        slot[0] = NULL
        Py_DECREF(<object> held)


@cython.final
cdef class Extra:
    def __cinit__(self):
        self.hooks = {}


@cython.freelist(1024)
@cython.no_gc_clear
cdef class Node:
    """One recorded operation, or a leaf that a gradient is collected in."""

    def __cinit__(self):
        # Plain nodes hold only C references and no cycle can pass through them; `extra_of` undoes this for the few that
        # hold more.
        PyObject_GC_UnTrack(<PyObject *> self)

    def __dealloc__(self):
        cdef int k
        for k in range(self.n_in):
            if self.parents[k] != NULL:
                bury(self.parents[k])
        if self.saved != NULL:
            for k in range(self.n_in + self.n_out):
                drop(&self.saved[k])
        drop(&self.op)
        drop(&self.params)
        drop(&self.scope)
        drop(&self.reserve)
        if self.n_in > INLINE_OPERANDS or self.n_out > 1:
            free(self.parents)
            free(self.saved)
            free(self.outs)
        if self.dims != self._dims:
            free(self.dims)

    @property
    def number(self):
        return self.number

    @property
    def op(self):
        return <object> self.op if self.op != NULL else None

    @property
    def is_leaf(self):
        return bool(self.flags & LEAF)

    @property
    def freed(self):
        return bool(self.flags & FREED)

    @property
    def shape(self):
        return result_shape(self, 0)

    @property
    def params(self):
        return node_params(self)

    @property
    def scope(self):
        return place_or_empty(self)

    @property
    def reserve(self):
        """What the kernel that ran kept for its backward; None if it kept nothing, or backward has freed it."""
        return <object> self.reserve if self.reserve != NULL else None

    @property
    def inputs(self):
        """Parents, operand by operand; None where no gradient flows."""
        return tuple([<object> self.parents[k] if self.parents[k] != NULL else None for k in range(self.n_in)])

    @property
    def n_in(self):
        return self.n_in

    @property
    def n_out(self):
        return self.n_out

    @property
    def grad(self):
        return get_grad(self, 0)

    def needs(self, int k):
        check_place(self, k, self.n_in)
        return self.parents[k] != NULL

    def operand(self, int k):
        """Operand k as a tensor connected to the graph; None if no rule asked for its value to be kept."""
        check_place(self, k, self.n_in)
        if self.saved == NULL or self.saved[k] == NULL:
            return None
        if self.parents[k] == NULL:
            return wrap(<object> self.saved[k])
        return known(<object> self.saved[k], <Node> self.parents[k], self.outs[k])

    def operand_shape(self, int k):
        check_place(self, k, self.n_in)
        if self.parents[k] != NULL:
            return result_shape(<Node> self.parents[k], self.outs[k])
        if self.saved != NULL and self.saved[k] != NULL:
            return tuple((<object> self.saved[k]).shape)
        return None

    def result(self, int j=0):
        check_place(self, j, self.n_out)
        if self.saved == NULL or self.saved[self.n_in + j] == NULL:
            return None
        return wrap_node(<object> self.saved[self.n_in + j], self, j)

    def result_shape(self, int j=0):
        check_place(self, j, self.n_out)
        return result_shape(self, j)

    def __repr__(self):
        name = (<OpBase> self.op).name if self.op != NULL else "leaf"
        return f"<node #{self.number} {name} {self.shape}>"


cdef str place_of(Node node):
    return f" in {<object> node.scope}" if node.scope != NULL else ""


cdef object result_shape(Node node, int j):
    cdef Py_ssize_t *dims = node.dims
    cdef int d, ndim = node.ndim
    if node.n_out > 1:
        dims = node.dims + j * (node.ndim + 1)
        ndim = <int> dims[0]
        dims += 1
    return tuple([dims[d] for d in range(ndim)])


cdef int check_place(Node node, int k, int n) except -1:
    if not 0 <= k < n:
        raise IndexError(f"{node!r} has no place {k}")
    return 0


cdef object get_grad(Node node, int out):
    if node.extra is None:
        return None
    if node.n_out == 1:
        return node.extra.grad
    return None if node.extra.grad is None else node.extra.grad.get(out)


cdef int set_grad(Node node, int out, object value) except -1:
    extra = extra_of(node)
    if node.n_out == 1:
        extra.grad = value
    else:
        if extra.grad is None:
            extra.grad = {}
        extra.grad[out] = value
    return 0


cdef Extra extra_of(Node node):
    if node.extra is None:
        node.extra = Extra.__new__(Extra)
        if not PyObject_GC_IsTracked(<PyObject *> node):
            PyObject_GC_Track(<PyObject *> node)      # hooks may close over the tensor that owns this node
    return node.extra


cdef int set_shape(Node node, object data) except -1:
    cdef Py_ssize_t *dims
    cdef int d, ndim
    if Py_TYPE(<PyObject *> data) == lane_type:
        ndim = lane.shape(data, &dims)
        if ndim > INLINE_DIMS:
            node.dims = <Py_ssize_t *> malloc(ndim * sizeof(Py_ssize_t))
        for d in range(ndim):
            node.dims[d] = dims[d]
    else:
        shape = data.shape
        ndim = len(shape)
        if ndim > INLINE_DIMS:
            node.dims = <Py_ssize_t *> malloc(ndim * sizeof(Py_ssize_t))
        for d in range(ndim):
            node.dims[d] = shape[d]
    node.ndim = ndim
    return 0


cdef int set_shapes(Node node, list shapes) except -1:
    cdef int j, d
    cdef Py_ssize_t *entry
    node.ndim = max([len(shape) for shape in shapes])
    node.dims = <Py_ssize_t *> calloc(node.n_out * (node.ndim + 1), sizeof(Py_ssize_t))
    if node.dims == NULL:
        node.dims = node._dims
        raise MemoryError
    for j in range(node.n_out):
        entry = node.dims + j * (node.ndim + 1)
        entry[0] = len(shapes[j])
        for d in range(<int> entry[0]):
            entry[1 + d] = shapes[j][d]
    return 0


cdef Node new_node(int n_in, int n_out):
    global clock
    cdef Node node = Node.__new__(Node)
    clock += 1
    node.number = clock
    node.dims = node._dims
    if n_in <= INLINE_OPERANDS and n_out == 1:
        node.parents, node.saved, node.outs = node._parents, node._saved, node._outs
    else:
        node.parents = <PyObject **> calloc(n_in + 1, sizeof(PyObject *))
        node.saved = <PyObject **> calloc(n_in + n_out, sizeof(PyObject *))
        node.outs = <int *> calloc(n_in + 1, sizeof(int))
        if node.parents == NULL or node.saved == NULL or node.outs == NULL:
            raise MemoryError
    node.n_in, node.n_out = n_in, n_out
    return node


cdef int forget(Node node) except -1:
    """Release what the rules needed; the edges stay, so that a tape can still be drawn."""
    cdef int k
    if node.saved != NULL:
        for k in range(node.n_in + node.n_out):
            drop(&node.saved[k])
    drop(&node.reserve)
    if node.op != NULL and (<OpBase> node.op).frees_params:
        drop(&node.params)
    node.flags |= FREED
    return 0


# --- in-place changes -----------------------------------------------------------------------------

cdef object owner_of(object data):
    base = getattr(data, "base", None)
    while base is not None:
        data = base.obj if type(base) is memoryview else base
        base = getattr(data, "base", None)
    return data


def mark_changed(data):
    """Stamp an array (all views of its memory with it) as changed in place now."""
    global clock, last_change
    clock += 1
    last_change = clock
    owner = owner_of(data)
    key = id(owner)
    entry = changes.get(key)
    if entry is None:
        table = changes
        try:
            watched = weakref.ref(owner, lambda _: table.pop(key, None))
        except TypeError:                # bytes and the like cannot be watched: the entry keeps them alive
            watched = owner
        entry = changes[key] = [watched, 0, 0]
    entry[1] = clock
    entry[2] += 1


def version(data):
    """Count the in-place changes of the memory that an array lives in."""
    entry = changes.get(id(owner_of(data)))
    return 0 if entry is None else entry[2]


def now():
    """The clock: a later change in place gets a larger stamp."""
    return clock


def changed_since(data, long long stamp):
    """Say whether the memory of an array was changed in place after a reading of the clock."""
    if last_change <= stamp:
        return False
    entry = changes.get(id(owner_of(data)))
    return entry is not None and entry[1] > stamp


cdef int check_params(Node node, object value) except -1:
    """Find arrays among parameters (the index of getitem) that were changed since."""
    if type(value) is tuple or type(value) is list:
        for part in value:
            check_params(node, part)
    elif hasattr(value, "dtype") and hasattr(value, "shape") and changed_since(value, node.number):
        raise GraphError(f"{(<OpBase> node.op).name}{place_of(node)}: an index array was changed in place after it was "
                         "recorded, so its gradient would go astray; change a copy, or change it after backward()")
    return 0


cdef int check_unchanged(Node node) except -1:
    cdef int k
    cdef object entry, what
    for k in range(node.n_in + node.n_out):
        if node.saved[k] == NULL:
            continue
        entry = changes.get(id(owner_of(<object> node.saved[k])))
        if entry is not None and entry[1] > node.number:
            op = <object> node.op
            what = f"operand '{op.operand_word(k, node_params(node))}'" if k < node.n_in else "result"
            if k < node.n_in and node.parents[k] != NULL and (<Node> node.parents[k]).extra is not None:
                if (<Node> node.parents[k]).extra.name:
                    what += f" (tensor '{(<Node> node.parents[k]).extra.name}')"
            place = place_of(node)
            raise GraphError(
                f"{op.name}{place}: its {what}, shape {tuple((<object> node.saved[k]).shape)}, was changed in place "
                "after it was recorded, so its gradient would be wrong; change a copy, or change it after backward()")
    if node.params != NULL:
        for value in (<dict> node.params).values():
            check_params(node, value)
    return 0


# --- tensors --------------------------------------------------------------------------------------

cdef enum:
    ADD, SUB, MUL, DIV, POW, MATMUL, NEG, ABS, LESS, LESS_EQUAL, EQUAL, NOT_EQUAL, GREATER, GREATER_EQUAL, GETITEM


cdef extern from *:
    """
    /* The type's own tp_new, without the tuple and dictionary of a Python-level call. */
    static PyObject *mg_no_args = NULL;
    static inline PyObject *mg_make(PyTypeObject *kind) {
        if (!mg_no_args) mg_no_args = PyTuple_New(0);
        return kind->tp_new(kind, mg_no_args, NULL);
    }
    """
    object mg_make(PyTypeObject *kind)


cdef inline TensorBase wrap(object data):
    cdef TensorBase t = <TensorBase> mg_make(<PyTypeObject *> tensor_type)
    t._data = data
    return t


cdef inline TensorBase wrap_node(object data, Node node, int out):
    cdef TensorBase t = wrap(data)
    t._node = node
    t._out = out
    return t


cdef TensorBase known(object data, Node node, int out):
    """A node's result as a tensor, under its name if it is a leaf."""
    cdef TensorBase t = wrap_node(data, node, out)
    if node.flags & LEAF and node.extra is not None:
        t._name = node.extra.name
    return t


cdef class TensorBase:
    """What the heart knows of a tensor: an array, the node that made it, and which of its results it is."""

    @property
    def node(self):
        return self._node

    @property
    def out(self):
        return self._out

    @property
    def requires_grad(self):
        return self._node is not None

    @property
    def is_leaf(self):
        return self._node is None or bool(self._node.flags & LEAF)

    @property
    def name(self):
        return self._name

    @name.setter
    def name(self, value):
        self._name = value
        if self._node is not None and value is not None and self._node.flags & LEAF:
            extra_of(self._node).name = value

    @property
    def grad(self):
        return get_grad(self._node, self._out) if self._node is not None else None

    @grad.setter
    def grad(self, value):
        if value is not None:
            if not isinstance(value, TensorBase):
                raise DTypeError(f"grad takes a tensor or None, not {type(value).__name__}")
            if tuple(value.shape) != tuple(self._data.shape):
                raise MinigradError(
                    f"grad of shape {tuple(value.shape)} for a tensor of shape {tuple(self._data.shape)}")
            if self._node is None:
                raise GraphError("a tensor that does not require a gradient cannot hold one")
            if value.dtype != self._data.dtype:
                raise DTypeError(f"grad of {value.dtype} for a tensor of {self._data.dtype}")
        elif self._node is None or self._node.extra is None:
            return
        set_grad(self._node, self._out, value)

    def retain_grad(self):
        """Keep the gradient of this tensor in .grad although it is not a leaf."""
        if self._node is None:
            raise GraphError("retain_grad(): this tensor does not require a gradient")
        self._node.flags |= RETAIN

    def register_hook(self, hook):
        """Call ``hook(grad)`` when the gradient of this tensor is complete.

        What it returns, unless None, replaces the gradient. The handle that is returned has ``remove()``.
        """
        if self._node is None:
            raise GraphError("register_hook(): this tensor does not require a gradient")
        if not callable(hook):
            raise UsageError(f"register_hook() takes a function of the gradient, not {hook!r}")
        extra = extra_of(self._node)
        return HookHandle(extra.hooks, hook, self._out)

    def __add__(a, b):
        return binary(ADD, a, b)

    def __sub__(a, b):
        return binary(SUB, a, b)

    def __mul__(a, b):
        return binary(MUL, a, b)

    def __truediv__(a, b):
        return binary(DIV, a, b)

    def __matmul__(a, b):
        return binary(MATMUL, a, b)

    def __pow__(a, b, modulo):
        if modulo is not None:
            return NotImplemented
        return binary(POW, a, b)

    def __neg__(a):
        cdef PyObject *xs[1]
        xs[0] = <PyObject *> a
        return apply(<OpBase> operators[NEG], xs, 1, None)

    def __pos__(a):
        return a

    def __abs__(a):
        cdef PyObject *xs[1]
        xs[0] = <PyObject *> a
        return apply(<OpBase> operators[ABS], xs, 1, None)

    def __richcmp__(a, b, int how):
        if b is None or type(b) is str:
            return NotImplemented
        if how == Py_LT:
            return binary(LESS, a, b)
        if how == Py_LE:
            return binary(LESS_EQUAL, a, b)
        if how == Py_EQ:
            return binary(EQUAL, a, b)
        if how == Py_NE:
            return binary(NOT_EQUAL, a, b)
        if how == Py_GT:
            return binary(GREATER, a, b)
        return binary(GREATER_EQUAL, a, b)

    def __hash__(self):
        return <Py_ssize_t> (<void *> self) >> 4

    def __getitem__(self, index):
        cdef PyObject *xs[1]
        xs[0] = <PyObject *> self
        if type(index) is not int and type(index) is not slice:
            index = clean_index(index)
        return apply(<OpBase> operators[GETITEM], xs, 1, {"index": index})


def clean_index(index):
    """Take tensors out of an index, leaving arrays."""
    if isinstance(index, TensorBase):
        return (<TensorBase> index)._data
    if type(index) is tuple:
        return tuple([clean_index(part) for part in index])
    if type(index) is list:
        return [clean_index(part) for part in index]
    return index


class HookHandle:
    """Undo a registered hook with :meth:`remove`."""

    __slots__ = ("_hooks", "_key")

    def __init__(self, hooks, hook, out):
        self._hooks, self._key = hooks, object()
        hooks[self._key] = (hook, out)

    def remove(self):
        """Take the hook away; doing it twice does no harm."""
        self._hooks.pop(self._key, None)


cdef int make_leaf(TensorBase t) except -1:
    cdef Node node = new_node(0, 1)
    node.flags = LEAF
    set_shape(node, t._data)
    t._node = node
    t._out = 0
    if t._name is not None:
        extra_of(node).name = t._name
    return 0


# --- recording ------------------------------------------------------------------------------------

cdef inline object binary(int which, object a, object b):
    cdef PyObject *xs[2]
    xs[0] = <PyObject *> a
    xs[1] = <PyObject *> b
    cdef OpBase op = <OpBase> (<list> operators)[which]
    return apply(op, xs, 2, None)


cdef enum:
    STACK = 8
    MANY = 24


cdef object apply(OpBase op, PyObject **xs, int n, object params):
    """Run an op on operands (tensors, arrays or scalars) and record it if a gradient may be asked for."""
    cdef PyObject *stack[STACK]
    cdef PyObject **datas = stack
    cdef object out = None, keep = None
    cdef PyObject *reserve = NULL
    cdef int k, strangers = 0
    cdef bint graph = False
    cdef TensorBase t
    if n > STACK:
        datas = <PyObject **> malloc(n * sizeof(PyObject *))
        if datas == NULL:
            raise MemoryError
    # The arrays are held: another thread may give a tensor other data while a kernel runs without the lock.
    for k in range(n):
        datas[k] = NULL
    try:
        for k in range(n):
            if PyObject_TypeCheck(<object> xs[k], <PyTypeObject *> TensorBase):
                t = <TensorBase> xs[k]
                datas[k] = <PyObject *> t._data
                Py_INCREF(t._data)
                if t._node is not None:
                    graph = True
                if Py_TYPE(datas[k]) != lane_type:
                    strangers += 2
            else:
                strangers += 1
        graph = graph and mg_here.recording
        if op.compiled is not None:
            if strangers == 1 and n == 2:             # a tensor and a scalar
                k = 0 if datas[0] == NULL else 1
                keep = lane.scalar(<object> xs[k], <object> datas[1 - k])
                if keep is not None:
                    Py_INCREF(keep)
                    datas[k] = <PyObject *> keep
                    strangers = 0
            if strangers == 0:
                out = run_kernel(op, datas, n, params, &reserve, graph)
        if out is None:
            if strangers == 0 and lane.uniform(datas, n):
                keep = [<object> datas[k] for k in range(n)]
            else:
                keep = (<object> op).coerce([<object> xs[k] for k in range(n)])
                strangers = 0
                for k in range(n):
                    drop(&datas[k])
                    Py_INCREF((<list> keep)[k])
                    datas[k] = <PyObject *> (<list> keep)[k]
                    strangers += Py_TYPE(datas[k]) != lane_type
                if op.compiled is not None and strangers == 0:
                    out = run_kernel(op, datas, n, params, &reserve, graph)
            if out is None:
                out = (<object> op).forward(keep, params)
                if type(out) is Kept:
                    drop(&reserve)
                    Py_INCREF((<Kept> out).reserve)
                    reserve = <PyObject *> (<Kept> out).reserve
                    out = (<Kept> out).value
        return record(op, xs, datas, n, params, out, &reserve, graph)
    except Exception as error:
        (<object> op).fail(error, [<object> xs[k] for k in range(n)], params, here())
        raise
    finally:
        drop(&reserve)
        for k in range(n):
            drop(&datas[k])
        if datas != stack:
            free(datas)


cdef inline object run_kernel(OpBase op, PyObject **datas, int n, object params, PyObject **reserve, bint graph):
    if graph:
        return op.compiled.forward_kept(datas, n, params, reserve)
    return op.compiled.forward(datas, n, params)


cdef object record(OpBase op, PyObject **xs, PyObject **datas, int n, object params, object out, PyObject **reserve,
                   bint graph):
    cdef bint several = type(out) is tuple
    cdef int n_out = len(<tuple> out) if several else 1
    cdef int k, j
    cdef unsigned int mask = 0, bit
    cdef Node node = None
    cdef TensorBase t
    cdef object result
    if graph and op.need == NULL:
        (<object> op).wire()
    if graph and op.differentiable:
        for k in range(n):
            bit = 1 << (k if op.arity >= 0 else 0)
            if op.differentiable & bit and datas_node(xs[k]) != NULL:
                mask |= op.need[k if op.arity >= 0 else 0] | WANTED
        if mask:
            node = new_node(n, n_out)
            Py_INCREF(op)
            node.op = <PyObject *> op
            if params is not None:
                Py_INCREF(params)
                node.params = <PyObject *> params
            if mg_here.scope != NULL:
                Py_INCREF(<object> mg_here.scope)
                node.scope = mg_here.scope
            for k in range(n):
                bit = 1 << (k if op.arity >= 0 else 0)
                if op.differentiable & bit:
                    node.parents[k] = datas_node(xs[k])
                    if node.parents[k] != NULL:
                        Py_INCREF(<object> node.parents[k])
                        node.outs[k] = (<TensorBase> xs[k])._out
                if mask & bit and op.arity >= 0 or mask & SAVES_ALL:
                    Py_INCREF(<object> datas[k])
                    node.saved[k] = datas[k]
            if n_out > 1:
                set_shapes(node, [tuple(o.shape) for o in <tuple> out])
            else:
                set_shape(node, (<tuple> out)[0] if several else out)
            if mask & SAVES_RESULT:
                for j in range(n_out):
                    result = (<tuple> out)[j] if several else out
                    Py_INCREF(result)
                    node.saved[n + j] = <PyObject *> result
            node.reserve, reserve[0] = reserve[0], NULL
    if several:
        result = tuple([wrap_node(o, node, j) for j, o in enumerate(<tuple> out)])
    else:
        result = t = wrap(out)
        t._node = node
    if mg_here.tapes != NULL:
        observe(op, xs, datas, n, params, result)
    return result


cdef inline PyObject *datas_node(PyObject *x):
    if PyObject_TypeCheck(<object> x, <PyTypeObject *> TensorBase) and (<TensorBase> x)._node is not None:
        return <PyObject *> (<TensorBase> x)._node
    return NULL


cdef class OpBase:
    """What the heart reads of a record of the page."""

    def __dealloc__(self):
        free(self.need)

    def _face(self, str name, int arity, bint plain, bint frees_params=False):
        """Set what a call needs to know: the number of operands (-1: any), and whether it needs no binding."""
        self.name, self.arity, self.plain, self.frees_params = name, arity, plain, frees_params

    def _wire(self, list need, list differentiable):
        """Set what recording needs to know: per operand what its rule needs, and whether it has one."""
        cdef int k
        free(self.need)
        self.need = <unsigned int *> calloc(max(len(need), 1), sizeof(unsigned int))
        if self.need == NULL:
            raise MemoryError
        self.differentiable = 0
        for k, bits in enumerate(need):
            self.need[k] = bits
            if differentiable[k]:
                self.differentiable |= 1 << k

    def __call__(self, *args, **kwargs):
        cdef Py_ssize_t n = len(args)
        cdef PyObject *xs[STACK]
        cdef PyObject **many
        cdef int k
        cdef object params = None
        if not self.plain or n != self.arity or kwargs:
            args, params = (<object> self).bind(args, kwargs)
            n = len(<tuple> args)
        if n <= STACK:
            for k in range(n):
                xs[k] = <PyObject *> (<tuple> args)[k]
            return apply(self, xs, <int> n, params)
        many = <PyObject **> malloc(n * sizeof(PyObject *))
        if many == NULL:
            raise MemoryError
        try:
            for k in range(n):
                many[k] = <PyObject *> (<tuple> args)[k]
            return apply(self, many, <int> n, params)
        finally:
            free(many)

    def run(self, tuple operands, dict params):
        """Apply to operands with complete parameters, without the binding of a call."""
        cdef Py_ssize_t n = len(operands)
        cdef PyObject *xs[MANY]
        cdef int k
        if n > MANY:
            return self(*operands, **params)
        for k in range(n):
            xs[k] = <PyObject *> operands[k]
        return apply(self, xs, <int> n, params)


cdef class Kept:
    """What an array lane's kernel returns where its backward needs more than operands and results: value and that."""
    cdef readonly object value
    cdef readonly object reserve

    def __init__(self, value, reserve):
        self.value, self.reserve = value, reserve


cdef class Kernel:
    cdef object forward(self, PyObject **xs, int n, object params):
        return None

    cdef object forward_kept(self, PyObject **xs, int n, object params, PyObject **reserve):
        return self.forward(xs, n, params)

    cdef int backward(self, Node node, PyObject **saved, PyObject **gs, PyObject ***targets) except -1:
        return 0


cdef class Lane:
    cdef int shape(self, object data, Py_ssize_t **dims) except -1:
        return -1

    cdef object scalar(self, object value, object like):
        return None

    cdef int add(self, PyObject **slot, object more) except -1:
        return 0

    cdef bint exclusive(self, PyObject *data):
        return False

    cdef bint uniform(self, PyObject **xs, int n):
        return False


def install(Lane compiled_lane, array_type, tensor):
    """Connect the compiled lane, the array type it owns, and the class of the tensors that operations return."""
    global lane, lane_type, tensor_type
    lane, lane_type, tensor_type = compiled_lane, <PyTypeObject *> array_type, tensor
    Py_INCREF(array_type)


def bind_operators(**ops):
    """Connect Python's operators on tensors with records of the page."""
    order = ("add", "sub", "mul", "div", "pow", "matmul", "neg", "abs", "less", "less_equal", "equal", "not_equal",
             "greater", "greater_equal", "getitem")
    for place, name in enumerate(order):
        operators[place] = ops[name]


def set_requires_grad(TensorBase t, bint on):
    """Make a tensor without a graph a leaf that collects a gradient, or a leaf a plain tensor."""
    if on == (t._node is not None):
        return
    if on:
        make_leaf(t)
    elif t._node.flags & LEAF:
        t._node = None
    else:
        raise GraphError("requires_grad can be switched off on leaf tensors only; "
                         "detach() cuts any tensor from its graph")


def tensor(data, bint requires_grad=False, name=None):
    """Wrap an array of a known lane as it is."""
    cdef TensorBase t = wrap(data)
    t._name = name
    if requires_grad:
        make_leaf(t)
    return t


def result_of(Node node, int out, data):
    """Return result `out` of a node, given its array, as a tensor connected to the graph."""
    return wrap_node(data, node, out)


def set_data(TensorBase t, data):
    """Give a leaf another array."""
    if t._node is not None:
        if not t._node.flags & LEAF:
            raise GraphError("only leaf tensors can be given other data; this one is the result of an operation")
        if tuple(data.shape) != t._node.shape:
            t._data = data
            t._node = None               # what was recorded keeps the old leaf and its shape
            make_leaf(t)
            return
    t._data = data


def data_of(x):
    """The array of a tensor; anything else as it is."""
    return (<TensorBase> x)._data if isinstance(x, TensorBase) else x


def is_recording():
    """Say whether this thread records operations for a later backward pass."""
    return bool(mg_here.recording)


def is_watched():
    """Say whether a tape is active in this thread."""
    return mg_here.tapes != NULL


_DETAILS = ("layers", "cells", "ops")     # from coarse to fine


def watched_detail():
    """Return the finest detail that a tape of this thread wants of recurrent layers; None if no tape watches."""
    cdef int found = 0
    if mg_here.tapes == NULL:
        return None
    for tape in <list> mg_here.tapes:
        found = max(found, _DETAILS.index(tape.detail))
    return _DETAILS[found]


cdef class Recording:
    """Switch recording on or off in this thread, as a context manager or a decorator; unseen, tapes do not watch."""
    cdef bint on, seen
    cdef list before

    def __cinit__(self, bint on, bint seen=True):
        self.on, self.seen = on, seen
        self.before = []

    def __enter__(self):
        tapes = None
        if not self.seen and mg_here.tapes != NULL:
            tapes = <object> mg_here.tapes
            drop(&mg_here.tapes)
        self.before.append((bool(mg_here.recording), tapes))
        mg_here.recording = self.on
        return self

    def __exit__(self, *exc):
        mg_here.recording, tapes = self.before.pop()
        if tapes is not None:
            drop(&mg_here.tapes)
            Py_INCREF(tapes)
            mg_here.tapes = <PyObject *> tapes
        return False

    def __call__(self, function):
        import functools

        @functools.wraps(function)
        def inner(*args, **kwargs):
            with Recording(self.on, self.seen):
                return function(*args, **kwargs)

        return inner


def here():
    """The scope path of this thread, ``""`` outside every scope."""
    return <object> mg_here.scope if mg_here.scope != NULL else ""


cdef object set_scope(object path):
    old = here()
    drop(&mg_here.scope)
    if path:
        Py_INCREF(path)
        mg_here.scope = <PyObject *> path
    return old


cdef class scope:
    """Name a part of the computation: ``with mg.scope("t=3"): …``; tapes, errors and pictures read the path."""
    cdef str name
    cdef list before

    def __cinit__(self, name):
        if not isinstance(name, str) or not name:
            raise UsageError(f"a scope is named by a text that is not empty, not {name!r}")
        self.name = name
        self.before = []

    def __enter__(self):
        path = here()
        self.before.append(path)
        set_scope(f"{path}/{self.name}" if path else self.name)
        return self

    def __exit__(self, *exc):
        set_scope(self.before.pop())
        return False


# --- tapes ----------------------------------------------------------------------------------------

STEP = re.compile(r"(?:^|/)t=(-?\d+)(?=/|$)")


class TapeNode:
    """One operation, or one leaf, as a tape saw it.

    ``id`` is its position on the tape; ``inputs`` are tape nodes, one per operand, with order and multiplicity.
    """

    __slots__ = ("id", "record", "inputs", "outs", "scope", "kind", "params", "tensor", "outputs", "__weakref__")

    def __init__(self, id, record, inputs, scope, kind, params, outputs, outs=()):
        self.id, self.record, self.inputs, self.scope = id, record, inputs, scope
        self.kind, self.params, self.outputs, self.tensor = kind, params, outputs, outputs[0]
        self.outs = outs             # which result of each input the operand is; () where all are the first

    def operands(self):
        """Return the operands' tensors."""
        outs = self.outs or (0,) * len(self.inputs)
        return [node.outputs[out] for node, out in zip(self.inputs, outs)]

    @property
    def op(self):
        """Name of the operation, or "parameter", "input", "constant"."""
        return self.record.name if self.record is not None else self.kind

    @property
    def time(self):
        """The step, from the innermost ``t=…`` of the scope; None outside of steps."""
        steps = STEP.findall(self.scope)
        return int(steps[len(steps) - 1]) if steps else None

    @property
    def name(self):
        return self.tensor.name

    @property
    def shape(self):
        return tuple(self.tensor.shape)

    @property
    def dtype(self):
        return str(self.tensor.dtype)

    @property
    def value(self):
        """The result's array."""
        return (<TensorBase> self.tensor)._data

    @property
    def grad(self):
        """The gradient's array after a backward pass, else None."""
        grad = self.tensor.grad
        return None if grad is None else (<TensorBase> grad)._data

    @property
    def requires_grad(self):
        return self.tensor.requires_grad

    @property
    def node(self):
        """The engine's node, None where no gradient flows."""
        return (<TensorBase> self.tensor)._node

    @property
    def arguments(self):
        """Operand names, one per input."""
        if self.record is None:
            return ()
        return tuple([self.record.operand_word(k, self.params) for k in range(len(self.inputs))])

    @property
    def local(self):
        """Text of the local derivative on each incoming edge, from the page; None where there is none."""
        if self.record is None:
            return ()
        return tuple([self.record.rule_text(k) for k in range(len(self.inputs))])

    @property
    def local_latex(self):
        if self.record is None:
            return ()
        return tuple([self.record.rule_latex(k) for k in range(len(self.inputs))])

    @property
    def equation(self):
        """The operation as text with its argument names."""
        return self.record.value_text if self.record is not None else ""

    @property
    def equation_latex(self):
        return self.record.value_latex if self.record is not None else ""

    def __repr__(self):
        name = f" {self.name}" if self.name else ""
        place = f" in {self.scope}" if self.scope else ""
        return f"<{self.id}: {self.op}{name} {self.shape}{place}>"


class Tape:
    """Watch this thread's operations: ``with mg.Tape() as tape: …`` keeps nodes, values, scopes and gradients.

    ``tape.nodes`` is the list of :class:`TapeNode` in creation order; leaves appear where they are first used.
    ``detail`` is what recurrent layers record while it watches: "ops", every operation; "cells", one node for each
    step; "layers", one for each layer. Explanations see every operation in any case. Layers with options that have no
    kernel record every operation.
    """

    def __init__(self, detail="ops"):
        if detail not in _DETAILS:
            raise UsageError(f"detail is 'ops', 'cells' or 'layers', not {detail!r}")
        self.detail = detail
        self.nodes = []
        self._at = {}

    def __enter__(self):
        if mg_here.tapes == NULL:
            tapes = []
            Py_INCREF(tapes)
            mg_here.tapes = <PyObject *> tapes
        (<list> mg_here.tapes).append(self)
        return self

    def __exit__(self, *exc):
        if mg_here.tapes == NULL:
            return False
        tapes = <list> mg_here.tapes
        for place in range(len(tapes) - 1, -1, -1):
            if tapes[place] is self:
                del tapes[place]
                break
        if not tapes:
            drop(&mg_here.tapes)
        return False

    @classmethod
    def from_graph(cls, *tensors):
        """Make a tape of the operations under tensors that were recorded without one.

        The engine keeps only what its rules need: values and gradients that it did not keep are None. Composed
        operations are opened (see :class:`Opened`).
        """
        return Opened(tensors).graph(*tensors)

    def __len__(self):
        return len(self.nodes)

    def of(self, tensor):
        """The tape node of a tensor that this tape saw; KeyError otherwise."""
        return self._at[key_of(tensor)]

    def _leaf(self, x, data):
        if isinstance(x, TensorBase):
            key = key_of(x)
            node = self._at.get(key)
            if node is not None:
                return node
            kind = "parameter" if x.requires_grad and x.is_leaf else "input"
        else:
            x, key, kind = wrap(data), None, "constant"
        node = TapeNode(len(self.nodes), None, (), "" if kind == "parameter" else here(), kind, {}, (x,))
        self.nodes.append(node)
        if key is not None:
            self._at[key] = node
        return node

    def _add(self, record, xs, scope, kind, params, outputs):
        """Enter a node whose operands are tensors."""
        inputs = tuple([self._leaf(x, None) for x in xs])
        node = TapeNode(len(self.nodes), record, inputs, scope, kind, params, outputs, outs_of(xs, inputs))
        self.nodes.append(node)
        for out in outputs:
            self._at[key_of(out)] = node
        return node

    def _observe(self, record, xs, datas, params, outputs):
        inputs = tuple([self._leaf(x, data) for x, data in zip(xs, datas)])
        node = TapeNode(len(self.nodes), record, inputs, here(), "op", params or {}, outputs, outs_of(xs, inputs))
        self.nodes.append(node)
        for out in outputs:
            self._at[key_of(out)] = node


class GraphNode(TapeNode):
    """A tape node rebuilt from the engine's graph."""

    __slots__ = ("_dtype", "_name", "_node", "_shape", "_value")

    def __init__(self, id, record, inputs, scope, kind, params, node, shape, dtype, value, name):
        self.id, self.record, self.inputs, self.scope = id, record, inputs, scope
        self.kind, self.params, self.outputs, self.tensor, self.outs = kind, params, (), None, ()
        self._node, self._shape, self._dtype, self._value, self._name = node, shape, dtype, value, name

    name = property(lambda self: self._name)
    shape = property(lambda self: self._shape)
    dtype = property(lambda self: self._dtype)
    value = property(lambda self: self._value)
    node = property(lambda self: self._node)
    requires_grad = property(lambda self: self._node is not None)

    @property
    def grad(self):
        grad = None if self._node is None else self._node.grad
        return None if grad is None else (<TensorBase> grad)._data


cdef tuple outs_of(xs, inputs):
    """Return which result of each input an operand is; () where all are the first."""
    cdef int k
    outs = [0] * len(inputs)
    for k in range(len(inputs)):
        outputs = inputs[k].outputs
        if len(outputs) > 1:
            key = key_of(xs[k])
            for place in range(len(outputs)):
                if key_of(outputs[place]) == key:
                    outs[k] = place
    return tuple(outs) if any(outs) else ()


cdef object graph_tape(tape, list tensors, dict inside):
    cdef Plan plan = Plan.__new__(Plan)
    cdef Py_ssize_t i
    cdef int k
    cdef Node node
    plan.build(tensors, None)
    kept = {}                       # (node, result) -> the value, where some rule keeps it
    for t in tensors:
        if (<TensorBase> t)._node is not None:
            kept[id((<TensorBase> t)._node), (<TensorBase> t)._out] = (<TensorBase> t)._data
    names = {id((<TensorBase> t)._node): t.name for t in tensors}
    for i in range(plan.n):
        node = <Node> plan.nodes[i]
        for k in range(node.n_in):
            if node.parents[k] != NULL and node.saved[k] != NULL:
                kept[id(<object> node.parents[k]), node.outs[k]] = <object> node.saved[k]
        for k in range(node.n_out):
            if node.saved[node.n_in + k] != NULL:
                kept[id(node), k] = <object> node.saved[node.n_in + k]
    dtype = str(tensors[0].dtype)
    at = {}
    for i in range(plan.n - 1, -1, -1):
        node = <Node> plan.nodes[i]
        inputs = []
        seen = inside.get(id(node))     # a part of what was composed: it was watched when that was opened
        for k in range(node.n_in):
            if node.parents[k] != NULL:
                inputs.append(at[id(<object> node.parents[k])])
                continue
            if seen is not None:
                other = seen.inputs[k]
                if id(other) not in at:
                    at[id(other)] = TapeNode(len(tape.nodes), None, (), other.scope,
                                             "input" if other.kind == "op" else other.kind, {}, other.outputs)
                    tape.nodes.append(at[id(other)])
                inputs.append(at[id(other)])
                continue
            value = <object> node.saved[k] if node.saved[k] != NULL else None
            shape = () if value is None else tuple(value.shape)
            leaf = GraphNode(len(tape.nodes), None, (), place_or_empty(node), "constant", {}, None, shape, dtype, value,
                             None)
            tape.nodes.append(leaf)
            inputs.append(leaf)
        if seen is not None:
            made = TapeNode(len(tape.nodes), seen.record, tuple(inputs), seen.scope, "op", seen.params, seen.outputs,
                            seen.outs)
            tape.nodes.append(made)
            at[id(node)] = made
            continue
        leafy = bool(node.flags & LEAF)
        name = names.get(id(node)) or (node.extra.name if node.extra is not None else None)
        made = GraphNode(len(tape.nodes), None if leafy else <object> node.op, tuple(inputs), place_or_empty(node),
                         "parameter" if leafy else "op", node_params(node), node, result_shape(node, 0), dtype,
                         kept.get((id(node), 0)), name)
        tape.nodes.append(made)
        at[id(node)] = made
    return tape


class Opened:
    """A copy of a graph in which composed operations are replaced by what they are composed of.

        x ──► [lstm] ──► [mul] ──► E          x ──► [affine] ──► [sigmoid] ──► … ──► [mul]' ──► E'

    Nodes that no composed one leads to are shared, leaves among them; whatever comes after is copied, with what it
    saved. The graph itself stays as it is. A composed operation whose saved values were freed stays closed.

    Args:
        tensors: the results to look under.
        tape: what saw them; the whole tape is opened then.

    Attributes:
        tape: the opened tape; the one that was given, if it holds nothing composed.
    """

    __slots__ = ("tape", "_inside", "_graph", "_parts", "_made", "_shown", "_nodes", "_kept")

    def __init__(self, tensors, tape=None):
        self.tape = tape
        self._inside = {}      # id of an engine's node of the copy, inside of a composed one -> its tape node
        self._graph = {}       # id of an engine's node -> per result the same value in the copy
        self._parts = {}       # likewise -> operands, and the tape that saw what it is made of
        self._made = {}        # key of a tensor of the copy -> its tape node, where that is inside
        self._shown = {}       # key of a tensor that no gradient flows to -> the same value in the copy
        self._nodes = {}       # id of a node of `tape` -> its copy
        self._kept = []        # identities mean something as long as their owners live
        seen = [t for t in tensors if isinstance(t, TensorBase)]
        if tape is not None:
            seen += [out for node in tape.nodes for out in node.outputs]
        roots = [t for t in seen if (<TensorBase> t)._node is not None]
        cdef Plan plan = Plan.__new__(Plan)
        cdef Py_ssize_t i
        plan.build(roots, None)
        nodes = [<object> plan.nodes[i] for i in range(plan.n - 1, -1, -1)]
        if any([opens(node) for node in nodes]):
            self._copy(nodes)
        if tape is not None and (self._graph or any([composed(node.record) for node in tape.nodes])):
            self._copy_tape(tape)

    def tensor(self, t):
        """Return the same value in the copy; a tensor that nothing composed led to is itself."""
        if not isinstance(t, TensorBase):
            return t
        if t.node is None:
            return self._shown.get(key_of(t), t)
        if id(t.node) not in self._graph:
            return t
        same = moved(t, self._graph[id(t.node)][t.out])
        inside = self._made.get(key_of(same))
        if inside is not None and t.name:      # the caller's name goes before the unit's
            for out in inside.outputs:
                if key_of(out) == key_of(same):
                    out.name = t.name
        return same

    def node(self, node):
        """Return the copy of a node of the tape that was given; of a composed one, that of its first result."""
        return self._nodes.get(id(node), node)

    def made(self, t):
        """Return the tape node of a value that the copy computes inside of a composed operation; None for others."""
        return self._made.get(key_of(t))

    def graph(self, *tensors):
        """Make a tape of the operations under some of the tensors, from the engine's graph alone."""
        return graph_tape(Tape(), [self.tensor(t) for t in tensors], self._inside)

    def _copy(self, nodes):
        cdef Node node
        cdef int k
        self._kept += nodes
        for node in nodes:
            if opens(node):
                operands = [self._operand(node, k) for k in range(node.n_in)]
                if node.number < last_change:
                    check_unchanged(node)
                results, inner = self._open(<object> node.op, operands, node_params(node), place_or_empty(node))
                self._graph[id(node)], self._parts[id(node)] = results, (operands, inner)
                continue
            for k in range(node.n_in):
                if node.parents[k] != NULL and id(<object> node.parents[k]) in self._graph:
                    made = copied_node(node, self._graph)
                    self._graph[id(node)] = [wrap_node(None, made, j) for j in range(node.n_out)]
                    break

    def _operand(self, Node node, int k):
        t = node.operand(k)
        if node.parents[k] == NULL or id(<object> node.parents[k]) not in self._graph:
            return t
        return moved(t, self._graph[id(<object> node.parents[k])][node.outs[k]])

    def _open(self, op, operands, params, place):
        """Run what an operation is composed of, watched: return its results and the tape."""
        inner = Tape()
        before = set_scope(place)
        try:
            with Recording(True, False), inner:
                results = list(op.open(operands, params, self.made))
        finally:
            set_scope(before)
        for node in inner.nodes:
            self._kept.append(node)
            if node.record is None:
                continue
            if node.node is not None:
                self._inside[id(node.node)] = node
            for out in node.outputs:
                self._made[key_of(out)] = node
        return results, inner

    def _copy_tape(self, tape):
        self.tape = copy = Tape()
        for node in tape.nodes:
            outputs = tuple([self.tensor(x) for x in node.outputs])
            if node.record is None:
                made = copy._add(None, (), node.scope, node.kind, node.params, outputs)
            elif not composed(node.record) or node.node is not None and node.node.freed:
                made = copy._add(node.record, [self.tensor(x) for x in node.operands()], node.scope, "op", node.params,
                                 outputs)
            else:
                made = self._splice(copy, node)
            self._nodes[id(node)] = made

    def _splice(self, copy, node):
        """Put what a composed operation is made of in its place on the tape."""
        own = [self.tensor(x) for x in node.operands()]
        if node.node is not None:
            operands, inner = self._parts[id(node.node)]
            results = self._graph[id(node.node)]
        else:
            operands = own
            results, inner = self._open(node.record, operands, node.params, node.scope)
            for old, new in zip(node.outputs, results):
                self._shown[key_of(old)] = new
        known = {id(x): mine for x, mine in zip(operands, own)}
        for part in inner.nodes:
            if part.record is not None:
                xs = [known.get(id(x), x) for x in part.operands()]
                copy._add(part.record, xs, part.scope, "op", part.params, part.outputs)
            elif id(part.tensor) not in known and key_of(part.tensor) not in copy._at:
                copy._add(None, (), part.scope, part.kind, part.params, part.outputs)
        for old, new in zip(node.outputs, results):
            if old.name:
                copy.of(new).tensor.name = old.name
        return copy.of(results[0])


cdef TensorBase moved(TensorBase t, TensorBase same):
    """Return a tensor's value at its place in a copy of the graph."""
    cdef TensorBase made = wrap_node(t._data, same._node, same._out)
    made._name = t._name
    return made


cdef bint composed(record) except -1:
    return getattr(record, "kind", None) == "composed"


cdef bint opens(Node node) except -1:
    return node.op != NULL and not node.flags & FREED and composed(<object> node.op)


cdef Node copied_node(Node old, dict graph):
    """Copy a node with all it holds; parents are those of the copy."""
    cdef Node node = new_node(old.n_in, old.n_out), parent
    cdef TensorBase same
    cdef int k
    cdef Py_ssize_t size = old.n_out * (old.ndim + 1) if old.n_out > 1 else old.ndim
    if old.number < last_change:
        check_unchanged(old)
    node.flags, node.ndim = old.flags, old.ndim
    node.op, node.params, node.scope, node.reserve = old.op, old.params, old.scope, old.reserve
    Py_XINCREF(node.op)
    Py_XINCREF(node.params)
    Py_XINCREF(node.scope)
    Py_XINCREF(node.reserve)
    for k in range(old.n_in + old.n_out):
        node.saved[k] = old.saved[k]
        Py_XINCREF(node.saved[k])
    for k in range(old.n_in):
        if old.parents[k] == NULL:
            continue
        parent, node.outs[k] = <Node> old.parents[k], old.outs[k]
        if id(parent) in graph:
            same = <TensorBase> (<list> graph[id(parent)])[old.outs[k]]
            parent, node.outs[k] = same._node, same._out
        if parent is not None:
            Py_INCREF(parent)
            node.parents[k] = <PyObject *> parent
    if size > INLINE_DIMS or old.n_out > 1:
        node.dims = <Py_ssize_t *> malloc(size * sizeof(Py_ssize_t))
        if node.dims == NULL:
            node.dims = node._dims
            raise MemoryError
    memcpy(node.dims, old.dims, size * sizeof(Py_ssize_t))
    if old.extra is not None:
        extra_of(node)
        node.extra.grad, node.extra.name = old.extra.grad, old.extra.name
        node.extra.hooks = dict(old.extra.hooks)
    return node


cdef object place_or_empty(Node node):
    return <object> node.scope if node.scope != NULL else ""


cdef object node_params(Node node):
    return <object> node.params if node.params != NULL else {}


cdef object key_of(TensorBase t):
    # Every tensor the tape has met is kept alive by it, so identities are not reused while it lives.
    if t._node is not None:
        return (id(t._node), t._out)
    return id(t)


cdef int observe(OpBase op, PyObject **xs, PyObject **datas, int n, object params, object result) except -1:
    outputs = result if type(result) is tuple else (result,)
    operands = [<object> xs[k] for k in range(n)]
    arrays = [<object> datas[k] for k in range(n)]
    for t in outputs:
        if (<TensorBase> t)._node is not None:
            (<TensorBase> t)._node.flags |= RETAIN | WATCHED
    for tape in list(<list> mg_here.tapes):
        tape._observe(op, operands, arrays, params, outputs)
    return 0


# --- the reverse sweep ----------------------------------------------------------------------------

cdef int falling(const void *a, const void *b) noexcept nogil:
    cdef long long x = (<Node> (<PyObject **> a)[0]).number, y = (<Node> (<PyObject **> b)[0]).number
    return (x < y) - (x > y)


cdef class Plan:
    """The nodes under some results, in falling creation number, and the slot that each operand's gradient goes to."""
    cdef PyObject **nodes       # borrowed: the roots keep them alive
    cdef Py_ssize_t n, room, n_slots
    cdef Py_ssize_t *base       # first slot of a node
    cdef Py_ssize_t *first      # its first edge
    cdef Py_ssize_t *to         # an edge's slot, -1 where no gradient is wanted
    cdef char *useful
    cdef PyObject **slots
    cdef list roots
    cdef Py_ssize_t *root_slots
    cdef Py_ssize_t *target_slots
    cdef bint cut               # the graph goes on beyond what targets can depend on

    def __dealloc__(self):
        cdef Py_ssize_t i
        if self.slots != NULL:
            for i in range(self.n_slots):
                drop(&self.slots[i])
        free(self.nodes)
        free(self.base)
        free(self.first)
        free(self.to)
        free(self.useful)
        free(self.slots)
        free(self.root_slots)
        free(self.target_slots)

    cdef int push(self, PyObject *node) except -1:
        cdef PyObject **room
        if self.n == self.room:
            self.room = 2 * self.room + 256
            room = <PyObject **> realloc(self.nodes, self.room * sizeof(PyObject *))
            if room == NULL:
                raise MemoryError
            self.nodes = room
        self.nodes[self.n] = node
        self.n += 1
        return 0

    cdef int order(self) except -1:
        """Sort by falling creation number: by counting where the numbers are dense, as in one training step."""
        cdef Py_ssize_t i, kept = 0, span
        cdef long long low = 0, high = 0, number
        cdef PyObject **table
        for i in range(self.n):
            number = (<Node> self.nodes[i]).number
            if i == 0 or number < low:
                low = number
            if i == 0 or number > high:
                high = number
        span = high - low + 1
        if span <= 16 * self.n + 4096:
            table = <PyObject **> calloc(span, sizeof(PyObject *))
            if table == NULL:
                raise MemoryError
            for i in range(self.n):
                table[(<Node> self.nodes[i]).number - low] = self.nodes[i]
            for i in range(span - 1, -1, -1):
                if table[i] != NULL:
                    self.nodes[kept] = table[i]
                    kept += 1
            free(table)
        else:
            qsort(self.nodes, self.n, sizeof(PyObject *), falling)
        return 0

    cdef int build(self, list roots, list targets) except -1:
        """Find and order the nodes under `roots`; with targets (tensors), only edges that lead to one of them count."""
        global sweeps
        cdef Py_ssize_t i, e = 0
        cdef long long oldest = 0
        cdef int k
        cdef Node node, parent
        cdef TensorBase t
        cdef PyObject *p
        self.roots = roots
        sweeps += 1
        if targets is not None:
            # What is older than every target cannot depend on one.
            for target in targets:
                node = (<TensorBase> target)._node
                if node is not None and (oldest == 0 or node.number < oldest):
                    oldest = node.number
        for root in roots:
            node = (<TensorBase> root)._node
            if node is not None and node.mark != sweeps:
                node.mark = sweeps
                self.push(<PyObject *> node)
        i = 0
        while i < self.n:
            node = <Node> self.nodes[i]
            i += 1
            for k in range(node.n_in):
                p = node.parents[k]
                if p == NULL or (<Node> p).mark == sweeps:
                    continue
                if (<Node> p).number < oldest:
                    self.cut = True
                    continue
                (<Node> p).mark = sweeps
                self.push(p)
            e += node.n_in
        self.order()
        self.base = <Py_ssize_t *> malloc((self.n + 1) * sizeof(Py_ssize_t))
        self.first = <Py_ssize_t *> malloc((self.n + 1) * sizeof(Py_ssize_t))
        self.to = <Py_ssize_t *> malloc((e + 1) * sizeof(Py_ssize_t))
        self.useful = <char *> calloc(self.n + 1, 1)
        if self.base == NULL or self.first == NULL or self.to == NULL or self.useful == NULL:
            raise MemoryError
        e = 0
        for i in range(self.n):
            node = <Node> self.nodes[i]
            node.place = i
            self.base[i] = self.n_slots
            self.n_slots += node.n_out
            self.first[i] = e
            e += node.n_in
        if targets is not None:
            for target in targets:
                t = <TensorBase> target
                if t._node is not None and t._node.mark == sweeps:
                    self.useful[t._node.place] = 2
        for i in range(self.n - 1, -1, -1):
            node = <Node> self.nodes[i]
            if targets is None:
                self.useful[i] = 1
            elif node.flags & LEAF and not self.useful[i]:
                self.cut = True
            for k in range(node.n_in):
                e = self.first[i] + k
                self.to[e] = -1
                if node.parents[k] != NULL and (<Node> node.parents[k]).mark == sweeps:
                    parent = <Node> node.parents[k]
                    if self.useful[parent.place]:
                        self.to[e] = self.base[parent.place] + node.outs[k]
                        self.useful[i] |= 1
        self.slots = <PyObject **> calloc(self.n_slots + 1, sizeof(PyObject *))
        if self.slots == NULL:
            raise MemoryError
        # The last reads of marks: once Python code can run, another sweep may overwrite them.
        self.find(roots, &self.root_slots)
        if targets is not None:
            self.find(targets, &self.target_slots)
        return 0

    cdef int find(self, list tensors, Py_ssize_t **found) except -1:
        """Look up the slots of tensors, -1 where the sweep does not meet them; nothing here lets Python code run."""
        cdef Py_ssize_t i
        cdef TensorBase t
        found[0] = <Py_ssize_t *> malloc((len(tensors) + 1) * sizeof(Py_ssize_t))
        if found[0] == NULL:
            raise MemoryError
        for i in range(len(tensors)):
            t = <TensorBase> tensors[i]
            found[0][i] = -1
            if t._node is not None and t._node.mark == sweeps:
                found[0][i] = self.base[t._node.place] + t._out
        return 0


cdef int put(PyObject **slot, object more, bint graph) except -1:
    """Add a contribution to a slot: arrays in a plain sweep, recorded tensors when the sweep itself is recorded."""
    cdef object total
    if slot[0] == NULL:
        Py_INCREF(more)
        slot[0] = <PyObject *> more
        return 0
    if graph:
        total = binary(ADD, <object> slot[0], more)
    elif Py_TYPE(slot[0]) == lane_type and lane.add(slot, more):
        return 0
    else:
        total = (<TensorBase> binary(ADD, wrap(<object> slot[0]), wrap(more)))._data
    Py_INCREF(total)
    drop(slot)
    slot[0] = <PyObject *> total
    return 0


def sweep(list roots, list grads, list targets=None, bint create_graph=False, bint keep_graph=False, bint edges=False):
    """Propagate `grads` (tensors) from `roots` (tensors) to the leaves.

    Without targets, leaves collect into their ``.grad`` and None is returned. With targets (tensors), returns their
    gradients (tensors or None) and touches no ``.grad``. ``create_graph`` records the sweep itself, so that it can be
    differentiated. ``edges`` also returns every edge's contribution apart, as ``[(node, operand, tensor), …]`` in sweep
    order.
    """
    cdef Plan plan = Plan.__new__(Plan)
    cdef Py_ssize_t i, e, s
    cdef int k, j, n_out, handled
    cdef Node node
    cdef OpBase op
    cdef PyObject **apart = NULL
    cdef PyObject **hold = NULL
    cdef PyObject ***into
    cdef PyObject **gs
    cdef int widest = 1
    cdef list results = None, where_to = [], contributions = [], leaves = []
    cdef object g, given
    plan.build(roots, targets)
    if targets is not None:
        results = [None] * len(targets)
        where_to = [plan.target_slots[k] for k in range(len(targets))]
    for k in range(len(roots)):
        s, g = plan.root_slots[k], grads[k]
        if s >= 0:
            put(&plan.slots[s], g if create_graph else (<TensorBase> g)._data, create_graph)
    for i in range(plan.n):
        widest = max(widest, (<Node> plan.nodes[i]).n_in + (<Node> plan.nodes[i]).n_out)
    cdef PyObject *tapes = mg_here.tapes
    before = mg_here.recording
    into = <PyObject ***> calloc(widest, sizeof(PyObject **))
    apart = <PyObject **> calloc(widest, sizeof(PyObject *))
    hold = <PyObject **> calloc(widest, sizeof(PyObject *))
    if into == NULL or apart == NULL or hold == NULL:
        free(into)
        free(apart)
        free(hold)
        raise MemoryError
    mg_here.recording = create_graph
    if not create_graph:
        mg_here.tapes = NULL            # the rules' own operations are no part of what a tape watches
    try:
        for i in range(plan.n):
            if not plan.useful[i]:
                continue
            node = <Node> plan.nodes[i]
            gs = &plan.slots[plan.base[i]]
            n_out = node.n_out
            handled = 0
            for j in range(n_out):
                handled |= gs[j] != NULL
            if not handled:
                continue
            if node.extra is not None or node.flags & RETAIN:
                settle(node, gs, create_graph, targets is None)
            if plan.useful[i] & 2:
                for k in range(len(where_to)):
                    s = where_to[k]
                    if plan.base[i] <= s < plan.base[i] + n_out and plan.slots[s] != NULL:
                        results[k] = as_tensor(plan.slots[s], create_graph)
            if not plan.useful[i] & 1:
                pass
            elif node.flags & LEAF:
                if targets is None:
                    leaves.append((node, as_tensor(gs[0], create_graph)))
            else:
                if node.flags & FREED:
                    place = place_of(node)
                    raise GraphError(
                        f"backward through {(<OpBase> node.op).name}{place} a second time: its saved values were freed "
                        "by the first; call the first one with retain_graph=True, or run the forward pass again")
                if node.number < last_change:
                    check_unchanged(node)
                e = plan.first[i]
                for k in range(node.n_in):
                    into[k] = NULL
                    if plan.to[e + k] >= 0:
                        into[k] = &apart[k] if edges else &plan.slots[plan.to[e + k]]
                op = <OpBase> node.op
                handled = 0
                if not create_graph and op.compiled is not None:
                    # Another thread's sweep may free the saved values while a kernel here runs without the lock.
                    for k in range(node.n_in + n_out):
                        hold[k] = node.saved[k]
                        if hold[k] != NULL:
                            Py_INCREF(<object> hold[k])
                    try:
                        handled = op.compiled.backward(node, hold, gs, into)
                    finally:
                        for k in range(node.n_in + n_out):
                            drop(&hold[k])
                if not handled:
                    given = (<object> op).contributions(
                        node,
                        [as_tensor(gs[j], create_graph) if gs[j] != NULL else None for j in range(n_out)],
                        [into[k] != NULL for k in range(node.n_in)])
                    for k in range(node.n_in):
                        g = (<list> given)[k]
                        if into[k] != NULL and g is not None:
                            put(into[k], g if create_graph else (<TensorBase?> g)._data, create_graph)
                    given = g = None
                if edges:
                    for k in range(node.n_in):
                        if apart[k] != NULL:
                            contributions.append((node, k, as_tensor(apart[k], create_graph)))
                            put(&plan.slots[plan.to[e + k]], <object> apart[k], create_graph)
                            drop(&apart[k])
                if not keep_graph and not node.flags & WATCHED:
                    forget(node)
            for j in range(n_out):
                drop(&gs[j])
    finally:
        mg_here.recording = before
        mg_here.tapes = tapes
        for k in range(widest):
            drop(&apart[k])
        free(apart)
        free(hold)
        free(into)
    for leaf, grad in leaves:
        collect(<Node> leaf, <TensorBase> grad, create_graph)
    if targets is not None and not create_graph:
        for k in range(len(results)):
            if results[k] is not None:
                results[k] = owned(<TensorBase> results[k])
    if edges:
        return results, contributions
    return results


cdef TensorBase as_tensor(PyObject *slot, bint graph):
    return <TensorBase> slot if graph else wrap(<object> slot)


cdef int settle(Node node, PyObject **gs, bint graph, bint keep) except -1:
    """Run hooks on a complete gradient and keep it where somebody asked for it and the sweep is a backward()."""
    cdef int j
    cdef TensorBase g
    cdef object new
    if node.extra is not None and node.extra.hooks:
        for hook, out in list(node.extra.hooks.values()):
            j = out
            if gs[j] == NULL:
                continue
            g = as_tensor(gs[j], graph)
            new = hook(g)
            if new is not None:
                if not isinstance(new, TensorBase) or new.dtype != g._data.dtype:
                    kind = new.dtype if isinstance(new, TensorBase) else type(new).__name__
                    raise GraphError(f"a hook returned {kind}; it returns None or a tensor of {g._data.dtype}")
                if tuple(new.shape) != tuple(g._data.shape):
                    raise GraphError(
                        f"a hook returned a gradient of shape {tuple(new.shape)} for one of {tuple(g._data.shape)}")
                if not graph:
                    new = (<TensorBase> new)._data
                Py_INCREF(new)
                drop(&gs[j])
                gs[j] = <PyObject *> new
    if keep and node.flags & RETAIN and not node.flags & LEAF:
        for j in range(node.n_out):
            if gs[j] != NULL:
                # A copy: the slot's array may be somebody else's contribution, or the caller's seed.
                g = as_tensor(gs[j], graph)
                set_grad(node, j, g if graph else copied(g))
    return 0


cdef TensorBase owned(TensorBase grad):
    """Give a gradient memory of its own: it may be a broadcast view, or the very array that another operand got."""
    if Py_TYPE(<PyObject *> grad._data) == lane_type and lane.exclusive(<PyObject *> grad._data):
        return grad
    return copied(grad)


cdef TensorBase copied(TensorBase grad):
    # A copy keeps a 0-d array an array; arrays without the method are copied by arithmetic.
    return wrap(grad._data.copy() if hasattr(grad._data, "copy") else grad._data + 0)


cdef int collect(Node leaf, TensorBase grad, bint graph) except -1:
    """Add a finished gradient to a leaf's .grad."""
    cdef Extra extra = extra_of(leaf)
    cdef object held = extra.grad
    if held is None:
        extra.grad = grad if graph else owned(grad)
    elif graph:
        extra.grad = binary(ADD, held, grad)
    else:
        total = sum_unrecorded(<TensorBase> held, grad)
        while extra.grad is not held:      # another thread's sweep came between
            held = extra.grad
            total = grad if held is None else sum_unrecorded(<TensorBase> held, grad)
        extra.grad = total
    return 0


cdef object sum_unrecorded(TensorBase a, TensorBase b):
    """Add by the operation of the page, which keeps 0-d arrays arrays, unseen by graph and tapes."""
    cdef int recording = mg_here.recording
    cdef PyObject *tapes = mg_here.tapes
    mg_here.recording, mg_here.tapes = 0, NULL
    try:
        return binary(ADD, a, b)
    finally:
        mg_here.recording, mg_here.tapes = recording, tapes


# --- the forward push -----------------------------------------------------------------------------

def push(list inputs, list tangents, list outputs, bint create_graph=False):
    """Push tangents (tensors) of `inputs` along the recorded graph.

    Returns the tangents of `outputs`: tensors, or None where an output does not depend on a moving input.
    """
    cdef Plan plan = Plan.__new__(Plan)
    cdef Py_ssize_t i, s
    cdef int k
    cdef Node node
    plan.build(outputs, inputs)
    starts = [plan.target_slots[k] for k in range(len(inputs))]
    ends = [plan.root_slots[k] for k in range(len(outputs))]
    given = set()
    for s, t in zip(starts, tangents):
        if s >= 0:
            put(&plan.slots[s], t, True)
            given.add(s)
    cdef PyObject *tapes = mg_here.tapes
    before = mg_here.recording
    mg_here.recording = create_graph
    if not create_graph:
        mg_here.tapes = NULL
    try:
        for i in range(plan.n - 1, -1, -1):
            node = <Node> plan.nodes[i]
            if not plan.useful[i] & 1 or node.flags & LEAF or plan.base[i] in given:
                continue
            arriving = [None] * node.n_in
            for k in range(node.n_in):
                s = plan.to[plan.first[i] + k]
                if s >= 0 and plan.slots[s] != NULL:
                    arriving[k] = <object> plan.slots[s]
            if all([t is None for t in arriving]):
                continue
            if node.flags & FREED:
                raise GraphError(
                    f"forward push through {(<OpBase> node.op).name}: its saved values were freed by a backward pass")
            if node.number < last_change:
                check_unchanged(node)
            leaving = (<object> <OpBase> node.op).tangents(node, arriving)
            for k in range(node.n_out):
                if leaving[k] is not None:
                    put(&plan.slots[plan.base[i] + k], leaving[k], True)
    finally:
        mg_here.recording = before
        mg_here.tapes = tapes
    return [None if s < 0 or plan.slots[s] == NULL else <object> plan.slots[s] for s in ends]


def reaches_others(list roots, list targets):
    """Say whether `roots` depend on anything that can be differentiated beside `targets`.

    A node older than every target belongs to somebody outside, so the walk stops at the first one.
    """
    cdef Plan plan = Plan.__new__(Plan)
    plan.build(roots, targets)
    return plan.cut


def other_leaves(list roots, list targets):
    """Return the leaf nodes that `roots` depend on beside `targets`: somebody outside may differentiate there."""
    cdef Plan plan = Plan.__new__(Plan)
    cdef Py_ssize_t i
    plan.build(roots, None)
    mine = {id(t.node) for t in targets}
    return [<object> plan.nodes[i] for i in range(plan.n)
            if (<Node> plan.nodes[i]).flags & LEAF and id(<object> plan.nodes[i]) not in mine]
