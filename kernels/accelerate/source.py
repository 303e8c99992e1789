"""What a forward that cannot be traced does with its module's children, as far as its source tells without doubt."""

import ast
import dis
import gc
import inspect
import textwrap
import weakref
from collections.abc import Collection, Iterator
from functools import partial
from itertools import pairwise
from types import CodeType, FunctionType, ModuleType
from typing import Any

from torch import Tensor, nn

OF_TORCH = frozenset(vars(nn.Module())) - {"training"}
"""Attributes that torch makes in every module."""
_ROUNDABOUT = {"super", "locals", "globals", "vars", "eval", "exec", "getattr", "sys", "gc", "inspect"}
_TYPES = ("__class__", "__name__", "__qualname__")
_MOST = 100_000


def is_container(module: nn.Module) -> bool:
    """Say whether nobody can call a module, whose modules are called one by one: a list, a dictionary or a bare Module.

    >>> is_container(nn.Module()), is_container(nn.ModuleList()), is_container(nn.Sequential())
    (True, True, False)
    """
    return type(module) in (nn.ModuleList, nn.ModuleDict, nn.Module) and "forward" not in vars(module)


def calls_as_torch(module: nn.Module) -> bool:
    """Say whether a call of a module is one of its class's forward, and its children are where torch keeps them."""
    kind = type(module)
    own = kind.__getattribute__ is object.__getattribute__ and kind.__getattr__ is nn.Module.__getattr__
    return own and kind.__call__ is nn.Module.__call__ and "forward" not in vars(module)


def runs_in_turn(module: nn.Module) -> bool:
    """Say whether a module's children are called as nn.Sequential's."""
    kind = type(module)
    ours = kind.forward is nn.Sequential.forward and kind.__iter__ is nn.Sequential.__iter__  # type: ignore[attr-defined]
    return ours and calls_as_torch(module)


def only_calls_children(module: nn.Module, those_of_sequences: bool = False) -> bool:
    """Say whether a forward, and methods that it calls, only call children of a module and read plain attributes.

    Children in a list or dictionary of modules count as the module's own, by an index or in a loop; if wanted, those
    of a sequence as well.
    """
    return calls_as_torch(module) and _harmless(type(module).forward, module, set(), those_of_sequences)


def held(module: nn.Module) -> set[nn.Module] | None:
    """Find modules to which attributes of one lead: through lists, closures, partials and the like; None: too many.

    What the methods of its class name counts too; that it has children does not.
    """
    kinds = [kind for kind in type(module).__mro__ if not kind.__module__.startswith("torch.") and kind is not object]
    waiting = [value for name, value in vars(module).items() if name not in OF_TORCH]
    waiting += [value for kind in kinds for name, value in vars(kind).items() if not name.startswith("__")]
    found, seen = set(), set()
    keep: list[Any] = []  # so that no id is used twice
    while waiting and len(keep) < _MOST:
        value = waiting.pop()
        if id(value) in seen or isinstance(value, type | ModuleType | Tensor | CodeType | str | bytes):
            continue
        seen.add(id(value))
        keep.append(value)
        if isinstance(value, nn.Module):
            found.add(value)
            waiting += [v for name, v in vars(value).items() if name not in OF_TORCH]
            waiting += value._modules.values()
        elif isinstance(value, FunctionType):
            waiting += [value.__defaults__, value.__kwdefaults__, vars(value), *_named(value)]
            waiting += value.__closure__ or ()
        elif isinstance(value, weakref.ReferenceType):
            waiting.append(value())
        elif gc.is_tracked(value) or isinstance(value, dict | tuple):
            waiting += gc.get_referents(value)
    return None if waiting else found


def asks_for_types(module: nn.Module, others: Collection[str]) -> bool:
    """Say whether a module's forward, or a method that it names, may compare types: those of faster layers differ.

    Args:
        module: any.
        others: names of the types that differ. A name that is compared with none of them makes no difference.
    """
    waiting, seen = ["forward"], {"forward"}
    while waiting:
        name = waiting.pop()
        method = getattr(type(module), name, None)
        code = getattr(inspect.unwrap(method), "__code__", None) if callable(method) else None
        codes = [] if code is None else [*_codes(code)]
        bound = isinstance(inspect.getattr_static(type(module), name, None), FunctionType)
        me = codes[0].co_varnames[:1] if codes and bound else ()
        if any(_asks_for_types(inner, me if inner is code else (), others) for inner in codes):
            return True
        names = {name for inner in codes for name in inner.co_names}
        waiting += [name for name in names - seen if not hasattr(nn.Module, name)]
        seen |= names
    return False


def _asks_for_types(code: CodeType, me: tuple[str, ...], others: Collection[str]) -> bool:
    """Say whether code asks for a type, or its name: not for the module's own, which messages name and which stays.

    `x.type(dtype)` is another thing, and so is `super()`, to which Python 3.12 and later hand a `__class__`. In
    `f"{type(x)}"` a type is only written. `x.__class__.__name__ == "AdaptiveInstanceNorm2d"`, as MUNIT asks, says the
    same of whatever else.
    """
    steps = [*dis.get_instructions(code)]
    for number, (before, step) in enumerate(pairwise([None, *steps])):
        own = before is not None and before.opname.startswith("LOAD_FAST") and before.argval in me
        named = own or (before is not None and before.argval == "__class__")
        named = named or _compares_name(steps[number : number + 4], others)
        if step is not None and step.argval in _TYPES and step.opname != "LOAD_DEREF" and not named:
            return True
        if step is not None and step.argval == "type" and step.opname == "LOAD_GLOBAL":
            argument, *after = (each.opname for each in steps[number + 1 : number + 5] if each.opname != "PUSH_NULL")
            written = next((name for name in after if name not in ("PRECALL", "CALL", "CALL_FUNCTION")), "")
            if not argument.startswith("LOAD_FAST") or not written.startswith("FORMAT_"):
                return True
    return False


def _compares_name(steps: list[dis.Instruction], others: Collection[str]) -> bool:
    """Say whether steps ask for the name of a class and compare it with a text which is none of these."""
    if len(steps) < 4 or [step.argval for step in steps[:2]] != ["__class__", "__name__"]:
        return False
    text, comparison = steps[2:]
    other = isinstance(text.argval, str) and text.opname == "LOAD_CONST" and text.argval not in others
    return other and comparison.opname == "COMPARE_OP" and any(sign in comparison.argval for sign in ("==", "!="))


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _named(function: FunctionType) -> list[Any]:
    """Values of the globals that a function names."""
    names = {name for code in _codes(function.__code__) for name in code.co_names}
    return [function.__globals__[name] for name in names if name in function.__globals__]


def _harmless(function: Any, module: nn.Module, seen: set[str], those_of_sequences: bool) -> bool:
    """Say whether every mention of a function's first argument is a call of a child, or of a plain attribute."""
    tree = _source(function)
    if tree is None or not tree.args.args or tree.args.posonlyargs:
        return False
    me, children = tree.args.args[0].arg, {name for name, child in module._modules.items() if child is not None}
    plain = ({*vars(module)} - OF_TORCH) | {*module._parameters} | {*module._buffers}
    of_class = partial(inspect.getattr_static, type(module))
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Name):
            continue
        if node.id in _ROUNDABOUT:
            return False
        if node.id != me:
            continue
        attribute = parents[node]
        if not isinstance(attribute, ast.Attribute):
            return False
        name, user = attribute.attr, parents[attribute]
        called = _is_called(attribute, parents)
        if name in children:
            child: Any = module._modules[name]
            listed = is_container(child) or (those_of_sequences and runs_in_turn(child))
            harmless = listed and _elements_are_called(attribute, parents, tree, function)
            if not harmless and not is_container(child):
                harmless = called or _is_compared_with_none(user, attribute) or _reads_plain(user, child)
                harmless = harmless or _calls_method_of_leaf(user, child, parents)
            if not harmless:
                return False
        elif name in plain or (not called and (name in module._modules or _is_plain(of_class(name, module)))):
            continue
        elif isinstance(of_class(name, None), staticmethod) if called else name == "__class__":
            pass  # neither is handed the module, or leads to it
        elif called and name not in seen and isinstance(of_class(name, None), FunctionType):
            method = getattr(type(module), name)
            if hasattr(nn.Module, name) or not _harmless(method, module, seen | {name}, those_of_sequences):
                return False
        elif name not in seen and (name in {*vars(module), *module._modules} or of_class(name, None) is not None):
            return False  # what a module has not, it does not use
    return True


def _is_called(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> bool:
    user = parents[node]
    return isinstance(user, ast.Call) and user.func is node


def _reads_plain(user: ast.AST, child: Any) -> bool:
    """Say whether a child is asked for a number, a text or the like."""
    if not isinstance(user, ast.Attribute) or not isinstance(user.ctx, ast.Load):
        return False
    try:
        return _is_plain(getattr(child, user.attr))
    except Exception:  # whatever a property does
        return False


def _calls_method_of_leaf(user: ast.AST, child: Any, parents: dict[ast.AST, ast.AST]) -> bool:
    """Say whether a child without children has a method of its class's own called: `held` tells where that leads."""
    if not isinstance(user, ast.Attribute) or not _is_called(user, parents) or child._modules:
        return False
    method = inspect.getattr_static(type(child), user.attr, None)
    return isinstance(method, FunctionType) and not hasattr(nn.Module, user.attr) and user.attr not in vars(child)


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(each) for each in value)
    return value is None or isinstance(value, bool | int | float | str)


def _elements_are_called(
    container: ast.AST, parents: dict[ast.AST, ast.AST], tree: ast.FunctionDef, function: FunctionType
) -> bool:
    """Say whether one mention of a list or dictionary of modules calls them, asks for None, or counts them, no more."""
    user = parents[container]
    if isinstance(user, ast.Subscript) and user.value is container:
        return _is_called(user, parents) or _is_compared_with_none(parents[user], user)
    if _calls_builtin(user, ("len",), function):
        return True
    loop: ast.AST = container
    while isinstance(loop, ast.expr) and not isinstance(parents[loop], ast.For | ast.comprehension):
        loop = parents[loop]
    if not isinstance(loop, ast.expr) or parents[loop].iter is not loop:  # type: ignore[attr-defined]
        return False
    bound = _bound(loop, parents[loop].target, container, function)  # type: ignore[attr-defined]
    if not isinstance(bound, ast.Name):
        return False
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == bound.id]
    harmless = (_is_called(node, parents) or _is_compared_with_none(parents[node], node) for node in names)
    return all(isinstance(node.ctx, ast.Store) or way for node, way in zip(names, harmless, strict=True))


def _bound(loop: ast.AST, target: ast.AST, container: ast.AST, function: FunctionType) -> ast.AST | None:
    """What is bound to each module of a container where `for target in loop`; None if that is not known."""
    if loop is container:
        return target
    names = target.elts if isinstance(target, ast.Tuple) else []
    if not isinstance(loop, ast.Call) or any(keyword.arg != "strict" for keyword in loop.keywords):
        return None
    if isinstance(loop.func, ast.Attribute) and loop.func.value is container and not loop.args:
        if loop.func.attr == "items":
            return names[1] if len(names) == 2 else None
        return target if loop.func.attr == "values" else None
    if _calls_builtin(loop, ("reversed",), function):
        return _bound(loop.args[0], target, container, function)
    if _calls_builtin(loop, ("enumerate",), function):
        return _bound(loop.args[0], names[1], container, function) if len(names) == 2 else None
    starred = any(isinstance(each, ast.Starred) for each in (*loop.args, *names))
    if _calls_builtin(loop, ("zip",), function) and not starred:
        found = [_bound(arg, to, container, function) for arg, to in zip(loop.args, names, strict=False)]
        return next((to for to in found if to is not None), None)
    return None


def _calls_builtin(node: ast.AST, names: tuple[str, ...], function: FunctionType) -> bool:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or not node.args:
        return False
    name = node.func.id
    return name in names and name not in function.__globals__ and name not in function.__code__.co_varnames


def _is_compared_with_none(user: ast.AST, module: ast.AST) -> bool:
    if not isinstance(user, ast.Compare) or user.left is not module:
        return False
    nothing = all(isinstance(other, ast.Constant) and other.value is None for other in user.comparators)
    return nothing and all(isinstance(operator, ast.Is | ast.IsNot) for operator in user.ops)


def _source(function: Any) -> ast.FunctionDef | None:
    """The definition of a function; None where it is not certain that this is what runs."""
    if not isinstance(function, FunctionType) or function.__closure__ is not None:
        return None
    code = function.__code__
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(code))).body
        compiled = compile(ast.Module([tree], []), code.co_filename, "exec", dont_inherit=True)
    except (OSError, TypeError, SyntaxError, ValueError):
        return None
    (same, *_) = [*(inner for inner in compiled.co_consts if isinstance(inner, CodeType)), None]
    if not isinstance(tree, ast.FunctionDef) or same is None or same.co_name != code.co_name:
        return None
    parts = "co_names", "co_varnames", "co_freevars"  # a file may have been edited since; bytes depend on its imports
    return tree if all(getattr(same, part) == getattr(code, part) for part in parts) else None
