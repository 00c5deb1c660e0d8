// Where in a strategy's source a phase is: found in the text itself, so that it holds as the files change. Line numbers
// from 1. Reads Rust no further than its indentation goes.
import { Phase } from '../../generated/zbl/v1/timeline_pb';

/** A file, or the part of one that another hands over to. */
export interface Part {
    /** The strategy whose file it is. */
    readonly strategy: string;
    /** The number of its first line. */
    readonly first: number;
    readonly lines: readonly string[];
}

/** The names that the timeline's phases have in Rust. */
const NAMES: Readonly<Partial<Record<Phase, string>>> = {
    [Phase.LOCK_WAIT]: 'LockWait',
    [Phase.READ]: 'Read',
    [Phase.COMPUTE]: 'Compute',
    [Phase.WRITE]: 'Write',
    [Phase.COMMIT]: 'Commit',
};

/** Where a phase has a function of its own on the operation, or the lock has one in the strategy. */
const CALLS: Readonly<Partial<Record<Phase, RegExp>>> = {
    [Phase.LOCK_WAIT]: /\basync fn guard\b/,
    [Phase.READ]: /\boperation\.read\(\)/,
    [Phase.COMPUTE]: /\boperation\.compute\(/,
    [Phase.COMMIT]: /\boperation\.finish(_with_journal)?\(/,
};

/** What waits for another task that goes through the phases in its stead. */
const ELSEWHERE = /\banswered\.await\b/;

/** The file without its tests. */
export function fileOf(strategy: string, text: string): Part {
    const lines = text.trimEnd().split('\n');
    const tests = lines.indexOf('#[cfg(test)]');
    const shown = tests < 0 ? lines : lines.slice(0, tests);
    while (shown.at(-1) === '') {
        shown.pop();
    }
    return { strategy, first: 1, lines: shown };
}

/** The strategies that a file hands over to, and the functions there: `none::read_compute_write(…)`. */
export function handovers(part: Part, strategies: readonly string[]): { strategy: string; name: string }[] {
    const calls = part.lines.filter(isCode).flatMap((line) => [...line.matchAll(/\b([a-z_]+)::([a-z_]+)\(/g)]);
    return calls
        .map(([, strategy = '', name = '']) => ({ strategy, name }))
        .filter(({ strategy }) => strategy !== part.strategy && strategies.includes(strategy));
}

/** The part of a file from that function on, its description included; null where it has none of that name. */
export function partFrom(file: Part, name: string): Part | null {
    const at = functionAt(file.lines, name);
    if (at < 0) {
        return null;
    }
    let first = at;
    while (/^\s*(\/\/\/|#\[)/.test(file.lines[first - 1] ?? '')) {
        first -= 1;
    }
    return { strategy: file.strategy, first: file.first + first, lines: file.lines.slice(first) };
}

/** The numbers of the lines of a phase in each of the parts that a strategy consists of. */
export function phaseLines(parts: readonly Part[], phase: Phase): ReadonlySet<number>[] {
    const found = parts.map((part) => new Set([...linesOf(part.lines, phase)].map((at) => part.first + at)));
    if (phase === Phase.UNSPECIFIED || found.some((lines) => lines.size > 0)) {
        return found;
    }
    return parts.map((part) => new Set(matching(part.lines, ELSEWHERE).map((at) => part.first + at)));
}

/** The same within one part, from 0. */
function linesOf(lines: readonly string[], phase: Phase): Set<number> {
    const found = new Set<number>();
    const name = NAMES[phase];
    const call = CALLS[phase];
    for (const at of name === undefined ? [] : matching(lines, new RegExp(`\\bPhase::${name}\\b`))) {
        found.add(at);
        const work = new RegExp(`\\bPhase::${name}, (?:\\w+\\.)?(\\w+)(\\()?`).exec(lines[at] ?? '');
        // What the phase consists of: a block with a name, or a function of this file.
        const from = work === null ? -1 : work[2] === undefined ? blockAt(lines, work[1]) : functionAt(lines, work[1]);
        addBlock(found, lines, from);
    }
    for (const at of call === undefined ? [] : matching(lines, call)) {
        addBlock(found, lines, at);
    }
    return found;
}

function matching(lines: readonly string[], pattern: RegExp): number[] {
    return lines.flatMap((line, at) => (isCode(line) && pattern.test(line) ? [at] : []));
}

function isCode(line: string): boolean {
    return !/^\s*\/\//.test(line);
}

function functionAt(lines: readonly string[], name = ''): number {
    return lines.findIndex((line) => isCode(line) && new RegExp(`\\bfn ${name}\\b`).test(line));
}

function blockAt(lines: readonly string[], name = ''): number {
    return lines.findIndex((line) => isCode(line) && new RegExp(`\\blet ${name} = async\\b`).test(line));
}

/** Adds the line, and if something opens at its end all up to where that closes again. */
function addBlock(found: Set<number>, lines: readonly string[], from: number): void {
    const line = lines[from];
    if (line === undefined) {
        return;
    }
    found.add(from);
    let indent = indentOf(line);
    for (let at = from + 1, open = /[{(]$/.test(line); open && at < lines.length; at += 1) {
        found.add(at);
        const text = lines[at] ?? '';
        if (text.trim() !== '' && indentOf(text) <= indent) {
            // `) -> Result<…> {` closes and opens.
            open = /[{(]$/.test(text);
            indent = indentOf(text);
        }
    }
}

function indentOf(line: string): number {
    return line.length - line.trimStart().length;
}
