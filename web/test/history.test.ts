// The tree against DESIGN's own words: the path from the newest version back survives, the rest is lost to the one entry
// on it whose parent is older and which is newer.
import { expect, test } from 'vitest';

import { EntryKind } from '../src/generated/zbl/v1/account_service_pb';
import { COLUMNS_MOST, tree, type Held } from '../src/panels/history/tree';

/** A journal of an opening with 100.00 and deductions of 10.00, each given by the version it had read. */
function journal(...parents: number[]): Held[] {
    const entries: Held[] = [entry(1, 0, EntryKind.OPEN, 100_00n, 100_00n)];
    for (const [at, before] of parents.entries()) {
        const read = entries[before - 1];
        entries.push(entry(at + 2, before, EntryKind.DEDUCT, -10_00n, (read?.after ?? 0n) - 10_00n));
    }
    return entries;
}

function entry(version: number, before: number, kind: EntryKind, delta: bigint, after: bigint): Held {
    return { version, before, kind, delta, after, strategy: 'none', requestId: `r${version}`, at: null };
}

function lostTo(entries: readonly Held[]): Record<number, number> {
    const lost = tree(entries).rows.filter((row) => !row.survives);
    return Object.fromEntries(lost.map((row) => [row.entry.version, row.overwrittenBy ?? 0]));
}

test('a line where everybody had read the newest', () => {
    const { rows, lost, columns, balance, expected } = tree(journal(1, 2, 3));
    expect(rows.map((row) => [row.entry.version, row.survives, row.column])).toEqual([
        [4, true, 0],
        [3, true, 0],
        [2, true, 0],
        [1, true, 0],
    ]);
    expect([lost, columns, balance, expected]).toEqual([0, 1, 70_00n, 70_00n]);
});

test('two branches: each lost entry has its overwriter', () => {
    // v4 had read v2, v3 had read v1, v5 had read v3: v1 v3 v5 survive.
    const entries = journal(1, 1, 2, 3);
    expect(lostTo(entries)).toEqual({ 2: 3, 4: 5 });
    const { lost, lostDelta, balance, expected } = tree(entries);
    expect([lost, lostDelta]).toEqual([2, -20_00n]);
    expect([balance, expected]).toEqual([80_00n, 60_00n]);
});

test('a branch that a later stale write goes on from is not lost', () => {
    // v3 wrote over v2, and v4, which had read v2, over v3: v2 is back.
    expect(lostTo(journal(1, 1, 2))).toEqual({ 3: 4 });
});

test('a reset begins the sum anew, and what was lost before it stays lost', () => {
    const entries = [...journal(1, 1), entry(4, 3, EntryKind.RESET, 10_00n, 100_00n)];
    expect(lostTo(entries)).toEqual({ 2: 3 });
    expect(tree(entries).expected).toBe(100_00n);
    expect(tree(entries).rows.map((row) => row.expected)).toEqual([100_00n, 80_00n, 90_00n, 100_00n]);
});

test('the newest part alone tells the same of what is in it', () => {
    const entries = journal(1, 1, 2, 3, 5);
    const part = entries.slice(2);
    expect(lostTo(part)).toEqual({ 4: 5 });
    expect(tree(part).isWhole).toBe(false);
    expect(tree(entries).isWhole).toBe(true);
});

test('a void that was overwritten has lost no money', () => {
    const entries = [...journal(1, 1), entry(4, 2, EntryKind.VOID, 0n, 90_00n), entry(5, 3, EntryKind.DEDUCT, -10_00n, 80_00n)];
    expect(tree(entries).lost).toBe(1);
    expect(lostTo(entries)).toEqual({ 2: 3, 4: 5 });
});

test('lines begin where a branch ends, and end at the entry it had read', () => {
    const rows = tree(journal(1, 1, 2, 3)).rows.map(({ entry: { version }, column, passing, joining, goesOn }) => ({
        version,
        column,
        passing,
        joining,
        goesOn,
    }));
    expect(rows).toEqual([
        { version: 5, column: 0, passing: [], joining: [], goesOn: true },
        { version: 4, column: 1, passing: [0], joining: [], goesOn: true },
        { version: 3, column: 0, passing: [1], joining: [], goesOn: true },
        { version: 2, column: 1, passing: [0], joining: [], goesOn: true },
        { version: 1, column: 0, passing: [], joining: [1], goesOn: false },
    ]);
});

test('a hundred that had read the same take no more room than there is', () => {
    const { rows, columns, lost } = tree(journal(...Array<number>(100).fill(1)));
    expect(lost).toBe(99);
    expect(columns).toBe(COLUMNS_MOST + 1);
    expect(rows.every((row) => [row.column, ...row.passing, ...row.joining].every((line) => line <= COLUMNS_MOST))).toBe(true);
    expect(rows.at(-1)?.joining).toEqual(Array.from({ length: COLUMNS_MOST }, (_, line) => line + 1));
});
