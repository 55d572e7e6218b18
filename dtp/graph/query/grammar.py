"""The part of openCypher that is understood, as a grammar for lark (LALR). docs/query.md lists what is left out."""

from typing import Final

GRAMMAR: Final = r"""
start: clause+ returning

?clause: MATCH patterns where?            -> match
       | OPTIONAL MATCH patterns where?   -> optional
patterns: pattern ("," pattern)*
pattern: node (relation node)*
where: WHERE expr

node: "(" [variable] label* [properties] ")"
label: ":" name
properties: "{" [property ("," property)*] "}"
property: name ":" expr

?relation: "-" [detail] "->"   -> right
         | "<-" [detail] "-"   -> left
         | "-" [detail] "-"    -> both
         | "-->"               -> right
         | "<--"               -> left
         | "--"                -> both
detail: "[" [variable] [types] [hops] "]"
types: ":" name ("|" ":"? name)*
hops: "*" [bounds]
bounds: INT            -> exactly
      | INT ".." INT   -> between
      | ".." INT       -> at_most
      | INT ".."       -> at_least

returning: RETURN [DISTINCT] items [order] [skip] [limit]
items: item ("," item)*
item: expr [AS name]
order: ORDER BY sort ("," sort)*
sort: expr [ASC | ASCENDING | DESC | DESCENDING]
skip: SKIP expr
limit: LIMIT expr

?expr: xor | expr OR xor                  -> or_
?xor: conjunction | xor XOR conjunction   -> xor_
?conjunction: negation | conjunction AND negation -> and_
?negation: comparison | NOT negation      -> not_
?comparison: sum_
    | comparison "=" sum_                 -> eq
    | comparison "<>" sum_                -> ne
    | comparison "<" sum_                 -> lt
    | comparison "<=" sum_                -> le
    | comparison ">" sum_                 -> gt
    | comparison ">=" sum_                -> ge
    | comparison IN sum_                  -> in_
    | comparison STARTS WITH sum_         -> starts
    | comparison ENDS WITH sum_           -> ends
    | comparison CONTAINS sum_            -> contains
    | comparison IS NULL                  -> is_null
    | comparison IS NOT NULL              -> is_not_null
?sum_: product | sum_ "+" product -> add | sum_ "-" product -> sub
?product: power | product "*" power -> mul | product "/" power -> div | product "%" power -> mod
?power: unary | unary "^" power -> pow
?unary: atom | "-" unary -> neg | "+" unary
?atom: literal
    | "$" name                            -> parameter
    | variable "." name                   -> access
    | variable                            -> whole
    | COUNT "(" "*" ")"                   -> count_all
    | COUNT "(" [DISTINCT] expr ")"       -> count_some
    | NAME "(" [DISTINCT] [expr ("," expr)*] ")" -> call
    | "[" [expr ("," expr)*] "]"          -> list_
    | "(" expr ")"
    | CASE when+ [ELSE expr] END          -> case
when: WHEN expr THEN expr
literal: INT -> integer | FLOAT -> real | STRING -> text | TRUE -> true | FALSE -> false | NULL -> null

variable: NAME | QUOTED
name: NAME | QUOTED | COUNT | IN | IS | AS | BY | ASC | DESC | END | SKIP | LIMIT | ORDER

MATCH.2: /MATCH\b/i
OPTIONAL.2: /OPTIONAL\b/i
WHERE.2: /WHERE\b/i
RETURN.2: /RETURN\b/i
DISTINCT.2: /DISTINCT\b/i
AS.2: /AS\b/i
ORDER.2: /ORDER\b/i
BY.2: /BY\b/i
ASCENDING.2: /ASCENDING\b/i
ASC.2: /ASC\b/i
DESCENDING.2: /DESCENDING\b/i
DESC.2: /DESC\b/i
SKIP.2: /SKIP\b/i
LIMIT.2: /LIMIT\b/i
OR.2: /OR\b/i
XOR.2: /XOR\b/i
AND.2: /AND\b/i
NOT.2: /NOT\b/i
IN.2: /IN\b/i
STARTS.2: /STARTS\b/i
ENDS.2: /ENDS\b/i
CONTAINS.2: /CONTAINS\b/i
WITH.2: /WITH\b/i
IS.2: /IS\b/i
NULL.2: /NULL\b/i
TRUE.2: /TRUE\b/i
FALSE.2: /FALSE\b/i
COUNT.2: /COUNT\b/i
CASE.2: /CASE\b/i
WHEN.2: /WHEN\b/i
THEN.2: /THEN\b/i
ELSE.2: /ELSE\b/i
END.2: /END\b/i

NAME: /[^\W\d]\w*/
QUOTED: /`[^`]+`/
INT.1: /\d+(?![\w.])|\d+(?=\.\.)/
FLOAT.2: /\d+\.\d+([eE][+-]?\d+)?|\d+[eE][+-]?\d+|\.\d+([eE][+-]?\d+)?/
STRING: /'(\\.|[^'\\])*'|"(\\.|[^"\\])*"/s

%ignore /\s+/
%ignore /\/\/[^\n]*/
%ignore /\/\*(.|\n)*?\*\//
"""
