"""A tool loop with a calculator: the model writes expressions, a safe parser evaluates them.

    OPENAI_COMPATIBLE_BASE_URL=http://localhost:11434/v1 python examples/calculator.py "What is (3 + 4) * 12?"

No `eval`: the expression is parsed, and only numbers and the operators below are walked. Sizes are bounded:
`9 ** 9 ** 9` is an error and not an hour of work.
"""

import ast
import math
import operator
import sys
from collections.abc import Callable

from sluicegate.client import Client, ClientError, ToolCall

MOST_CHARACTERS = 200
MOST_BITS = 1024
Number = int | float
BINARY: dict[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
UNARY: dict[type[ast.unaryop], Callable[[Number], Number]] = {ast.USub: operator.neg, ast.UAdd: operator.pos}


def calculate(expression: str) -> str:
    """Evaluate an arithmetic expression.

    Args:
        expression: Numbers, parentheses and + - * / // % **, for example "(3 + 4) * 12".
    """
    if len(expression) > MOST_CHARACTERS:
        raise ValueError(f"an expression has at most {MOST_CHARACTERS} characters")
    return str(evaluate(ast.parse(expression.strip(), mode="eval").body))


def evaluate(node: ast.expr) -> Number:
    """The value of a parsed expression. Raises ValueError for anything but bounded arithmetic."""
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return bounded(number)
        case ast.UnaryOp(op=op, operand=operand) if type(op) in UNARY:
            return UNARY[type(op)](evaluate(operand))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in BINARY:
            one, two = evaluate(left), evaluate(right)
            if isinstance(op, ast.Pow) and isinstance(one, int) and isinstance(two, int):
                # Before it is computed: the result would have so many bits.
                if two < 0 and one == 0:
                    raise ValueError("division by zero")
                if one.bit_length() * abs(two) > MOST_BITS:
                    raise ValueError(f"a number has at most {MOST_BITS} bits")
            return bounded(BINARY[type(op)](one, two))
    raise ValueError(f"not arithmetic: {ast.unparse(node)}")


def bounded(number: object) -> Number:
    """The number, if it is a finite real one of a sensible size."""
    if isinstance(number, int) and number.bit_length() <= MOST_BITS:
        return number
    if isinstance(number, float) and math.isfinite(number):
        return number
    raise ValueError(f"a result must be a finite number of at most {MOST_BITS} bits")


def show(call: ToolCall) -> bool:
    """Print each call before it runs. A stricter program would ask here."""
    print(f"  {call.name}({call.arguments})", file=sys.stderr)
    return True


def main() -> None:
    """Ask the question of the command line, and stream the answer."""
    question = " ".join(sys.argv[1:]) or "Use calculate: what is (3 + 4) * 12?"
    try:
        with (
            Client() as client,
            client.stream(question, tools=[calculate], max_steps=5, approve=show) as stream,
        ):
            for chunk in stream:
                print(chunk.content, end="", flush=True)
    except ClientError as error:
        sys.exit(f"calculator: {error}")
    print()
    for step in stream.answer.steps:
        for result in step.results:
            print(f"  = {result.content}", file=sys.stderr)


if __name__ == "__main__":
    main()
