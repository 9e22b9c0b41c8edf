/**
 * `ls --tree`: which device uses which (spec: dm-core, 7.3).
 */
import type { DeviceInfo } from '../../daemon/api-types.ts';
import { failCommandLine, print } from '../output.ts';
import type { Mangling } from './mangling.ts';

interface Node {
  readonly key: string;
  /** Null for a device that is not mapped. */
  readonly info: DeviceInfo | null;
  readonly blkdevname: string;
  readonly children: Node[];
}

/** How branches are drawn. */
interface Style {
  /** To a child that is not the last, to the last, and past one that is not. */
  readonly tee: string;
  readonly corner: string;
  readonly bar: string;
  /** On one line: to an only child, and to the first of several. */
  readonly dash: string;
  readonly fork: string;
}

/** The line-drawing characters of a VT100, selected as dmsetup does, and back. */
const vt100 = (text: string): string => `\u001b(0\u000f${text}\u001b(B`;

const styles: Record<string, Style> = {
  ascii: { tee: '|-', corner: '`-', bar: '|', dash: '---', fork: '-+-' },
  utf: { tee: '├─', corner: '└─', bar: '│', dash: '───', fork: '─┬─' },
  vt100: {
    tee: vt100('tq'),
    corner: vt100('mq'),
    bar: vt100('x'),
    dash: vt100('qqq'),
    fork: vt100('qwq'),
  },
};

const KNOWN = new Set([
  'ascii',
  'utf',
  'vt100',
  'compact',
  'inverted',
  'notrunc',
  'blkdevname',
  'device',
  'nodevice',
  'active',
  'open',
  'rw',
  'uuid',
]);

/** Fails for an option of `ls --tree -o` that there is not. */
export function checkTreeOptions(optionText: string): void {
  for (const word of wordsOf(optionText)) {
    if (!KNOWN.has(word)) failCommandLine(`Tree options not recognised: ${word}.`);
  }
}

function wordsOf(optionText: string): Set<string> {
  return new Set(optionText.split(',').filter((word) => word !== ''));
}

/** Prints the tree of all devices; `optionText` is the argument of -o. */
export function printTree(
  mangling: Mangling,
  devices: readonly DeviceInfo[],
  optionText: string,
): void {
  const options = wordsOf(optionText);
  const tree = new Tree(mangling, options);
  for (const root of makeRoots(devices, options.has('inverted'))) tree.print(root);
}

class Tree {
  readonly #mangling: Mangling;
  readonly #options: ReadonlySet<string>;
  readonly #style: Style;

  constructor(mangling: Mangling, options: ReadonlySet<string>) {
    this.#mangling = mangling;
    this.#options = options;
    this.#style = styles[[...options].find((word) => word in styles) ?? defaultStyle()] as Style;
  }

  print(root: Node): void {
    if (this.#label(root) === '') return;
    if (this.#options.has('compact')) {
      this.#drawCompact(root, '', '', 0);
    } else {
      print(this.#label(root));
      this.#draw(root, '');
    }
  }

  #draw(node: Node, prefix: string): void {
    const children = this.#visible(node);
    for (const [i, child] of children.entries()) {
      const isLast = i === children.length - 1;
      const { tee, corner, bar } = this.#style;
      print(`${prefix} ${isLast ? corner : tee}${this.#label(child)}`);
      this.#draw(child, `${prefix} ${isLast ? ' ' : bar} `);
    }
  }

  /**
   * Draws a first child on the line of its parent, further ones below; `prefix` begins the lines
   * below, up to where `node` stands. Past a bar they stand further right than the fork, as
   * dmsetup's.
   */
  #drawCompact(node: Node, line: string, prefix: string, branchWidth: number): void {
    const label = this.#label(node);
    const children = this.#visible(node);
    if (children.length === 0) {
      print(`${line}${label}`);
      return;
    }
    const { tee, corner, bar, dash, fork } = this.#style;
    const below = prefix + ' '.repeat(branchWidth + label.length);
    for (const [i, child] of children.entries()) {
      const isLast = i === children.length - 1;
      const first = `${line}${label}${isLast ? dash : fork}`;
      const start = i === 0 ? first : `${below} ${isLast ? corner : tee}`;
      this.#drawCompact(child, start, isLast ? below : `${below} ${bar} `, BRANCH_WIDTH);
    }
  }

  #visible(node: Node): Node[] {
    return node.children.filter((child) => this.#label(child) !== '');
  }

  /** What stands for a device; '' if the options leave nothing of it. */
  #label({ key, info, blkdevname }: Node): string {
    const isDisk = info === null || info.hadTable;
    const words = [
      info === null ? '' : this.#mangling.shown(info.name, 'name'),
      ...(this.#options.has('blkdevname') && isDisk ? [`<${blkdevname}>`] : []),
      ...(this.#options.has('nodevice') ? [] : [`(${key})`]),
      ...(info === null ? [] : this.#state(info)),
    ];
    return words.join(' ');
  }

  /** States in brackets, in a fixed order. */
  #state(info: DeviceInfo): string[] {
    const words = [
      this.#options.has('active') ? (info.suspended ? 'SUSPENDED' : 'ACTIVE') : null,
      this.#options.has('rw') ? (info.readOnly ? 'RO' : 'RW') : null,
      this.#options.has('open') ? String(info.openCount) : null,
      this.#options.has('uuid') ? this.#mangling.shown(info.uuid, 'uuid') : null,
    ].filter((word) => word !== null);
    return words.length > 0 ? [`[${words.join(', ')}]`] : [];
  }
}

/** Columns of a branch on one line. */
const BRANCH_WIDTH = 3;

function defaultStyle(): string {
  const { LC_ALL, LC_CTYPE, LANG } = process.env;
  return /utf-?8/i.test(LC_ALL ?? LC_CTYPE ?? LANG ?? '') ? 'utf' : 'ascii';
}

/** The devices nobody uses, with what they use below; or the other way round. */
function makeRoots(devices: readonly DeviceInfo[], inverted: boolean): Node[] {
  const nodes = new Map<string, Node>();
  const nodeFor = (key: string, info: DeviceInfo | null, blkdevname: string): Node => {
    let node = nodes.get(key);
    if (node === undefined) {
      node = { key, info, blkdevname, children: [] };
      nodes.set(key, node);
    }
    return node;
  };
  const isChild = new Set<Node>();
  for (const info of devices) nodeFor(keyOf(info), info, `dm-${info.minor}`);
  // Roots come in the order of the devices that lead to them.
  const found = new Set<Node>();
  for (const info of devices) {
    const upper = nodeFor(keyOf(info), info, '');
    for (const dep of info.deps) {
      const lower = nodeFor(keyOf(dep), null, dep.blkdevname);
      const [parent, child] = inverted ? [lower, upper] : [upper, lower];
      parent.children.push(child);
      isChild.add(child);
      found.add(parent);
    }
    found.add(upper);
  }
  return [...found].filter((node) => !isChild.has(node));
}

const keyOf = ({ major, minor }: { major: number; minor: number }): string => `${major}:${minor}`;
