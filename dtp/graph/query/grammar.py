"""The part of openCypher that is understood, as a grammar for lark (LALR). docs/query.md lists what is left out."""

from typing import Final

#: Words of the grammar. They may name things as well: where a name is expected, no other terminal is looked for.
WORDS: Final = (
    "MATCH", "OPTIONAL", "WHERE", "RETURN", "DISTINCT", "AS", "ORDER", "BY", "ASCENDING", "ASC",
    "DESCENDING", "DESC", "SKIP", "LIMIT", "OR", "XOR", "AND", "NOT", "IN", "STARTS", "ENDS", "CONTAINS",
    "WITH", "IS", "NULL", "TRUE", "FALSE", "CASE", "WHEN", "THEN", "ELSE", "END", "UNION", "UNWIND",
    "CALL", "YIELD",
)  # fmt: skip
#: Words that are such only before a parenthesis.
_CALLED: Final = ["ALL", "ANY", "NONE", "SINGLE", "REDUCE", "COUNT"]
#: Words that have a query in braces behind them, and what such a query begins with: `count {a: 1}` is a node's.
_WITH_QUERY: Final = ["EXISTS", "COUNT", "COLLECT"]
_INNER: Final = (
    r"\(|\/[\/*]|(MATCH|OPTIONAL|WITH|UNWIND|CALL|RETURN)\b(?!\s*[:,}])|\w+\s*="
    r"|(shortestPath|allShortestPaths)\s*\("
)

GRAMMAR: Final = (
    r"""
start: [EXPLAIN | PROFILE] query
query: single (union single)*
union: UNION [all_]
all_: "ALL"i
single: clause* [returning]

?clause: MATCH patterns where?                                 -> match
       | OPTIONAL MATCH patterns where?                        -> optional
       | UNWIND expr AS variable                               -> unwind
       | WITH projection where?                                -> with_
       | CALL procedure "(" [_exprs] ")" yield_?     -> call_
       | CALL [imports] "{" query "}"                          -> call_in
imports: "(" ([variable ("," variable)*] | star) ")"
procedure: NAME ("." NAME)*
yield_: YIELD item ("," item)* where?
returning: RETURN projection
patterns: pattern ("," pattern)*
pattern: [path] node (relation node)*
       | [path] shortest
shortest: SHORTEST "(" node relation node ")"
path: variable EQUALS
where: WHERE expr

node: "(" [variable] label* [properties | parameter] ")"
label: ":" name (VBAR ":"? name)*
properties: "{" [property ("," property)*] "}"
property: name ":" expr
parameter: "$" (name | INT)

?relation: _FROM [detail] _TO      -> right
         | _FROM_LEFT [detail] _END -> left
         | _FROM [detail] _END     -> both
         | _FROM_LEFT [detail] _TO -> both
         | _RIGHT                  -> right
         | _LEFT                   -> left
         | _BOTH_WAYS              -> both
         | _EITHER                 -> both
detail: variable [types] [hops] [properties | parameter]
      | types [hops] [properties | parameter]
      | hops [properties | parameter]
      | (properties | parameter)
types: ":" name (VBAR ":"? name)*
hops: "*" [bounds]
bounds: INT            -> exactly
      | INT _DOTS INT  -> between
      | _DOTS INT      -> at_most
      | INT _DOTS      -> at_least
      | _DOTS          -> any_number

projection: [DISTINCT] items [order] [skip] [limit]
items: (star | item) ("," item)*
star: "*"
item: expr [AS variable]
order: ORDER BY sort ("," sort)*
sort: expr [ASC | ASCENDING | DESC | DESCENDING]
skip: SKIP expr
limit: LIMIT expr

_exprs: expr ("," expr)*
?expr: xor | expr OR xor                  -> or_
?xor: conjunction | xor XOR conjunction   -> xor_
?conjunction: negation | conjunction AND negation -> and_
?negation: comparison | NOT negation      -> not_
?comparison: predicate | predicate ((COMPARE | EQUALS) predicate)+ -> compare
?predicate: sum_
    | predicate IN sum_                   -> in_
    | predicate STARTS WITH sum_          -> starts
    | predicate ENDS WITH sum_            -> ends
    | predicate CONTAINS sum_             -> contains
    | predicate "=~" sum_                 -> regex
    | predicate IS NULL                   -> is_null
    | predicate IS NOT NULL               -> is_not_null
?sum_: product | sum_ "+" product -> add | sum_ "-" product -> sub
?product: power | product "*" power -> mul | product "/" power -> div | product "%" power -> mod
?power: unary | power "^" unary -> pow
?unary: postfix | "-" unary -> neg | "+" unary -> pos
?postfix: atom
    | postfix "." name                    -> access
    | postfix "[" expr "]"                -> at
    | postfix "[" expr _DOTS expr "]"     -> slice_both
    | postfix "[" expr _DOTS "]"          -> slice_from
    | postfix "[" _DOTS expr "]"          -> slice_to
    | postfix "[" _DOTS "]"               -> slice_all
    | postfix label+                      -> has_labels
?atom: literal
    | parameter
    | variable                            -> whole
    | COUNT "(" "*" ")"                   -> count_all
    | COUNT "(" [DISTINCT] expr ")"       -> count_some
    | NAME "(" [DISTINCT] [_exprs] ")" -> call
    | DOTTED "(" [_exprs] ")"   -> call
    | "[" [_exprs] "]"          -> list_
    | "[" variable IN expr [where] [BAR expr] "]" -> comprehension
    | (ALL | ANY | NONE | SINGLE) "(" variable IN expr where ")" -> quantifier
    | REDUCE "(" variable ("=" | EQUALS) expr "," variable IN expr BAR expr ")" -> reduce
    | properties                          -> map_
    | "(" expr ")"
    | "(" variable ")"                    -> whole
    | "(" properties ")"                  -> map_
    | "(" variable label+ ")"             -> has_labels_of
    | variable label+                     -> has_labels_of
    | node (relation node)+               -> pattern_there
    | "[" [path] node (relation node)+ [where] BAR expr "]" -> pattern_all
    | shortest
    | EXISTS_IN "{" inner "}"             -> exists_in
    | COUNT_IN "{" inner "}"              -> count_in
    | COLLECT_IN "{" query "}"            -> collect_in
    | variable PROJECTION [selector ("," selector)*] "}" -> projected
    | CASE [expr] when+ [else_] END       -> case
?inner: query
      | patterns where?                   -> match
selector: "." name  -> one_property
        | "." "*"   -> all_properties
        | name ":" expr -> named
        | variable  -> of_its_name
when: WHEN expr THEN expr
else_: ELSE expr
literal: INT -> integer | FLOAT -> real | STRING -> text | TRUE -> true | FALSE -> false | NULL -> null

variable: NAME | QUOTED
name: NAME | QUOTED

"""
    + "\n".join(f"{word}.3: /{word}\\b/i" for word in WORDS)
    + "\n"
    + "\n".join(rf"{word}.4: /{word}(?=\s*\()/i" for word in _CALLED)
    + "\n"
    + "\n".join(rf"{word}_IN.5: /{word}(?=\s*\{{\s*({_INNER}))/i" for word in _WITH_QUERY)
    + r"""

%declare BAR
DOTTED.4: /(date|localtime|time|localdatetime|datetime|duration)\s*\.\s*\w+(?=\s*\()/i
PROJECTION.5: /\{(?=\s*\.)/
VBAR: "|"
EXPLAIN.3: /EXPLAIN\b/i
PROFILE.3: /PROFILE\b/i
SHORTEST.4: /(shortestPath|allShortestPaths)(?=\s*\()/i
EQUALS.3: /=(?=\s*(\(|(shortestPath|allShortestPaths)\s*\())/i
_FROM.5: /-\s*\[/
_FROM_LEFT.5: /<\s*-\s*\[/
_TO.5: /\]\s*-\s*>/
_END.4: /\]\s*-/
_BOTH_WAYS.7: /<\s*-\s*-\s*>/
_RIGHT.6: /-\s*-\s*>/
_LEFT.6: /<\s*-\s*-/
_EITHER.5: /-\s*-/
COMPARE.2: /<>|<=|>=|=(?!~)|<|>/
NAME: /[^\W\d]\w*/
QUOTED: /`[^`]+`/
_DOTS.3: ".."
INT.1: /0x[0-9a-fA-F]+|0o[0-7]+|\d+(?![\w.])|\d+(?=\.\.)/
FLOAT.2: /\d+\.\d+([eE][+-]?\d+)?|\d+[eE][+-]?\d+|\.\d+([eE][+-]?\d+)?/
STRING: /'(\\.|[^'\\])*'|"(\\.|[^"\\])*"/s

%ignore /\s+/
%ignore /\/\/[^\n]*/
%ignore /\/\*(.|\n)*?\*\//
"""
)
