/**
 * Selections: the expressions of `-S` (spec: dm-core, 7.2).
 *
 *   or   := and { ('||' | '#') and }        and := item { ('&&' | ',') item }
 *   item := ['!'] '(' or ')' | field operator value
 */
import { CommandFailed, complain, HelpShown } from '../output.ts';
import { complainFields, findField, type Field, type Row } from './fields.ts';

/** Whether a row is selected. */
export type Selection = (row: Row) => boolean;

/** Longest first, so that `>=` is not read as `>`. */
const operators = ['=~', '!~', '!=', '>=', '<=', '=', '>', '<'] as const;
type Operator = (typeof operators)[number];

const HELP = `Selection operands
------------------
  field               - Reporting field.
  number              - Non-negative integer value.
  size                - Floating point value with units, 'm' unit used by default if not specified.
  percent             - Non-negative integer with or without % suffix.
  string              - Characters quoted by ' or " or unquoted.
  string list         - Strings enclosed by [ ] or { } and elements delimited by either
                        "all items must match" or "at least one item must match" operator.
  regular expression  - Characters quoted by ' or " or unquoted.
 
Selection operators
-------------------
  Comparison operators:
        =~  - Matching regular expression. [regex]
        !~  - Not matching regular expression. [regex]
         =  - Equal to. [number, size, percent, string, string list, time]
        !=  - Not equal to. [number, size, percent, string, string_list, time]
        >=  - Greater than or equal to. [number, size, percent, time]
         >  - Greater than. [number, size, percent, time]
        <=  - Less than or equal to. [number, size, percent, time]
         <  - Less than. [number, size, percent, time]
     since  - Since specified time (same as '>='). [time]
     after  - After specified time (same as '>'). [time]
     until  - Until specified time (same as '<='). [time]
    before  - Before specified time (same as '<'). [time]
 
  Logical and grouping operators:
      &&  - All fields must match
       ,  - All fields must match
      ||  - At least one field must match
       #  - At least one field must match
       !  - Logical negation
       (  - Left parenthesis
       )  - Right parenthesis
       [  - List start
       ]  - List end
       {  - List subset start
       }  - List subset end
 `;

function complainHelp(): void {
  for (const line of HELP.split('\n')) complain(line);
}

/** Parses the text of -S; fails with dmsetup's lines for a mistake. */
export function parseSelection(text: string): Selection {
  if (text === 'help' || text === '?') {
    complainFields(true);
    complainHelp();
    throw new HelpShown();
  }
  if (text.trim() === '') return () => true;
  return new Parser(text).parse();
}

class Parser {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  parse(): Selection {
    const selection = this.#or();
    this.#skipBlanks();
    if (this.#at < this.#text.length) this.#mistake(this.#at, 'Expecting logical operator');
    return selection;
  }

  #or(): Selection {
    const parts = [this.#and()];
    while (this.#take('||') || this.#take('#')) parts.push(this.#and());
    return (row) => parts.some((part) => part(row));
  }

  #and(): Selection {
    const parts = [this.#item()];
    while (this.#take('&&') || this.#take(',')) parts.push(this.#item());
    return (row) => parts.every((part) => part(row));
  }

  #item(): Selection {
    const negated = this.#take('!');
    if (negated && this.#text.charAt(this.#at) !== '(') {
      this.#fail(`Syntax error: left parenthesis expected at '${this.#text.slice(this.#at)}'`);
    }
    if (!this.#take('(')) return this.#comparison();
    const inner = this.#or();
    if (!this.#take(')')) {
      this.#fail(`Syntax error: right parenthesis expected at '${this.#text.slice(this.#at)}'`);
    }
    return negated ? (row) => !inner(row) : inner;
  }

  #comparison(): Selection {
    this.#skipBlanks();
    const start = this.#at;
    const name = /^[A-Za-z0-9_]+/.exec(this.#text.slice(start))?.[0] ?? '';
    if (name === '') this.#mistake(start, 'Expecting field name');
    const field = findField(name);
    if (field === undefined) {
      complainFields(true);
      this.#mistake(start, `Unrecognised selection field: ${name}`);
    }
    this.#at += name.length;
    this.#skipBlanks();
    const rest = this.#text.slice(this.#at);
    const operator = operators.find((candidate) => rest.startsWith(candidate));
    if (operator === undefined) {
      complainHelp();
      this.#mistake(start, `Unrecognised comparison operator: ${rest}`);
    }
    this.#at += operator.length;
    const value = this.#value();
    return this.#compare(field, operator, value, start);
  }

  #value(): string {
    this.#skipBlanks();
    const rest = this.#text.slice(this.#at);
    const quoted = /^(["'])(.*?)\1/s.exec(rest);
    const found = quoted?.[0] ?? /^(?:(?!&&|\|\||[,#()\s]).)*/s.exec(rest)?.[0] ?? '';
    this.#at += found.length;
    return quoted?.[2] ?? found;
  }

  #compare(field: Field, operator: Operator, value: string, start: number): Selection {
    const isRegex = operator === '=~' || operator === '!~';
    const isNumber = field.kind === 'number';
    if (isRegex) {
      if (isNumber) {
        this.#fail(`dm_report: incompatible comparison type for selection field ${field.name}`);
      }
      const regex = this.#regex(value);
      return (row) => regex.test(String(field.value(row))) === (operator === '=~');
    }
    if (isNumber && !/^[0-9]+$/.test(value)) {
      const text = `Failed to parse numeric value for selection field ${field.name}.`;
      this.#mistake(start, text);
    }
    if (!isNumber && operator !== '=' && operator !== '!=') {
      complainHelp();
      const text = 'Operator can be used only with number, size, time or percent fields';
      this.#mistake(start, `${text}: ${this.#text.slice(start)}`);
    }
    const wanted = isNumber ? Number(value) : value;
    return (row) => holds(field.value(row), operator, wanted);
  }

  #regex(text: string): RegExp {
    try {
      return new RegExp(text);
    } catch {
      return this.#fail(`Failed to create regular expression from '${text}'.`);
    }
  }

  #skipBlanks(): void {
    while (/\s/.test(this.#text.charAt(this.#at))) this.#at++;
  }

  #take(word: string): boolean {
    this.#skipBlanks();
    if (!this.#text.startsWith(word, this.#at)) return false;
    this.#at += word.length;
    return true;
  }

  #mistake(at: number, text: string): never {
    complain(text);
    complain(`Selection syntax error at '${this.#text.slice(at)}'.`);
    return this.#fail("Use 'help' for selection to get more help.");
  }

  #fail(text: string): never {
    complain(text);
    throw new CommandFailed('');
  }
}

function holds(found: string | number, operator: Operator, wanted: string | number): boolean {
  switch (operator) {
    case '=':
      return found === wanted;
    case '!=':
      return found !== wanted;
    case '>':
      return found > wanted;
    case '>=':
      return found >= wanted;
    case '<':
      return found < wanted;
    default:
      return found <= wanted;
  }
}
