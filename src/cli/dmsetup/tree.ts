/**
 * `ls --tree`: which device uses which (spec: dm-core, 7.3).
 */
import type { DeviceInfo } from '../../daemon/api-types.ts';
import { CommandFailed, complain, print } from '../output.ts';

interface Node {
  readonly key: string;
  /** Null for a device that is not mapped. */
  readonly info: DeviceInfo | null;
  readonly blkdevname: string;
  readonly children: Node[];
}

/**
 * How branches are drawn: to a child that is not the last, to the last, and past one that is not.
 */
interface Style {
  readonly tee: string;
  readonly corner: string;
  readonly bar: string;
  readonly blank: string;
}

const styles: Record<string, Style> = {
  ascii: { tee: '|-', corner: '`-', bar: '| ', blank: '  ' },
  utf: { tee: '├─', corner: '└─', bar: '│ ', blank: '  ' },
  vt100: {
    tee: '\u001b(0tq\u001b(B',
    corner: '\u001b(0mq\u001b(B',
    bar: '\u001b(0x \u001b(B',
    blank: '  ',
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

/** Prints the tree of all devices; `optionText` is the argument of -o. */
export function printTree(devices: readonly DeviceInfo[], optionText = ''): void {
  const options = new Set(optionText.split(',').filter((word) => word !== ''));
  for (const word of options) {
    if (KNOWN.has(word)) continue;
    complain(`Tree options not recognised: ${optionText}.`);
    throw new CommandFailed('command line');
  }
  const style = styles[[...options].find((word) => word in styles) ?? defaultStyle()] as Style;
  const show = (node: Node): string => label(node, options);
  const visible = (node: Node): boolean => node.info !== null || !options.has('nodevice');
  const roots = makeRoots(devices, options.has('inverted')).filter(visible);
  const draw = (node: Node, prefix: string): void => {
    const children = node.children.filter(visible);
    for (const [i, child] of children.entries()) {
      const last = i === children.length - 1;
      print(`${prefix} ${last ? style.corner : style.tee}${show(child)}`);
      draw(child, `${prefix} ${last ? style.blank : style.bar}`);
    }
  };
  const drawCompact = (node: Node, line: string, column: number): void => {
    const text = `${line}${show(node)}`;
    const children = node.children.filter(visible);
    if (children.length === 0) {
      print(text);
      return;
    }
    const indent = column + show(node).length;
    for (const [i, child] of children.entries()) {
      const last = i === children.length - 1;
      const only = children.length === 1;
      const start = i === 0 ? text : ' '.repeat(indent);
      const branch = only ? '---' : i === 0 ? '-+-' : last ? ' `-' : ' |-';
      drawCompact(child, `${start}${branch}`, indent + 3);
    }
  };
  for (const root of roots) {
    if (options.has('compact')) {
      drawCompact(root, '', 0);
    } else {
      print(show(root));
      draw(root, '');
    }
  }
}

function defaultStyle(): string {
  const { LC_ALL, LC_CTYPE, LANG } = process.env;
  return /utf-?8/i.test(LC_ALL ?? LC_CTYPE ?? LANG ?? '') ? 'utf' : 'ascii';
}

function label({ key, info, blkdevname }: Node, options: ReadonlySet<string>): string {
  const name = options.has('blkdevname')
    ? `<${info === null ? blkdevname : `dm-${info.minor}`}> `
    : '';
  if (info === null) return name === '' ? ` (${key})` : `${name}(${key})`;
  const extra = [
    options.has('active') ? (info.suspended ? 'SUSPENDED' : 'ACTIVE') : null,
    options.has('rw') ? (info.readOnly ? 'RO' : 'RW') : null,
    options.has('open') ? String(info.openCount) : null,
    options.has('uuid') ? info.uuid : null,
  ].filter((word) => word !== null);
  const brackets = extra.length > 0 ? ` [${extra.join(', ')}]` : '';
  return `${info.name} ${name}(${key})${brackets}`;
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
  for (const info of devices) nodeFor(`${info.major}:${info.minor}`, info, `dm-${info.minor}`);
  const isChild = new Set<Node>();
  for (const info of devices) {
    const upper = nodeFor(`${info.major}:${info.minor}`, info, `dm-${info.minor}`);
    for (const dep of info.deps) {
      const lower = nodeFor(`${dep.major}:${dep.minor}`, null, dep.blkdevname);
      const [parent, child] = inverted ? [lower, upper] : [upper, lower];
      parent.children.push(child);
      isChild.add(child);
    }
  }
  return [...nodes.values()].filter((node) => !isChild.has(node));
}
