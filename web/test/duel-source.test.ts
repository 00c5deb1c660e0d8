import { readdirSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';

import { Phase } from '../src/generated/zbl/v1/timeline_pb';
import { fileOf, handovers, partFrom, phaseLines, type Part } from '../src/panels/duel/source';
import { piecesOf } from '../src/panels/duel/tokens';

const FOLDER = `${import.meta.dirname}/../../server/src/strategy`;
const { LOCK_WAIT, READ, COMPUTE, WRITE, COMMIT } = Phase;

/** The strategies of the server: the files with a row of the registry. */
const files = new Map(
    readdirSync(FOLDER)
        .filter((name) => name.endsWith('.rs'))
        .map((name) => ({ name: name.slice(0, -3), text: readFileSync(`${FOLDER}/${name}`, 'utf8') }))
        .filter(({ text }) => text.includes('const ROW: Row'))
        .map(({ name, text }) => [name, fileOf(name, text)] as const),
);

function fileNamed(name: string): Part {
    const file = files.get(name);
    if (file === undefined) {
        throw new Error(`${name} is no strategy's file`);
    }
    return file;
}

function partsOf(name: string): Part[] {
    const file = fileNamed(name);
    const others = handovers(file, [...files.keys()]).map((to) => partFrom(fileNamed(to.strategy), to.name));
    return [file, ...others.filter((part) => part !== null)];
}

/** The text of a phase's lines, trimmed. */
function textOf(name: string, phase: Phase): string[] {
    const parts = partsOf(name);
    const lines = phaseLines(parts, phase);
    return parts.flatMap((part, at) => part.lines.filter((_, offset) => lines[at]?.has(part.first + offset)))
        .map((line) => line.trim());
}

// The steps that the explorer offers of each; a new strategy has to be entered here.
const PHASES: Readonly<Record<string, readonly Phase[]>> = {
    none: [READ, COMPUTE, WRITE, COMMIT],
    optimistic: [READ, COMPUTE, WRITE, COMMIT],
    pessimistic: [READ, COMPUTE, WRITE, COMMIT],
    serializable: [READ, COMPUTE, WRITE, COMMIT],
    event_sourced: [READ, COMPUTE, WRITE, COMMIT],
    atomic: [WRITE, COMMIT],
    atomic_three_trips: [WRITE, COMMIT],
    mutex: [LOCK_WAIT, READ, COMPUTE, WRITE, COMMIT],
    redis_lock: [LOCK_WAIT, READ, COMPUTE, WRITE, COMMIT],
    redis_lock_fenced: [LOCK_WAIT, READ, COMPUTE, WRITE, COMMIT],
    redlock: [LOCK_WAIT, READ, COMPUTE, WRITE, COMMIT],
    batched: [LOCK_WAIT, READ, WRITE, COMMIT],
};

test('every strategy is known here', () => {
    expect([...files.keys()].sort()).toEqual(Object.keys(PHASES).sort());
});

test.each(Object.entries(PHASES))('every phase of %s has lines, and none is a comment or a test', (name, phases) => {
    for (const phase of phases) {
        const lines = textOf(name, phase);
        expect(lines.length, Phase[phase]).toBeGreaterThan(0);
        expect(lines.length, Phase[phase]).toBeLessThan(45);
        expect(lines[0]).not.toMatch(/^(\/\/|use )/);
    }
    for (const part of partsOf(name)) {
        expect(part.lines.join('\n')).not.toContain('#[cfg(test)]');
        expect(part.lines.join('\n')).toContain('operation');
    }
});

test('the lines of a phase are those that do it', () => {
    expect(textOf('none', READ)).toEqual(['let seen = operation.read().await?;']);
    expect(textOf('none', COMMIT)).toEqual(['operation.finish(transaction, written).await']);
    const write = textOf('none', WRITE);
    expect(write[0]).toBe('let write = async {');
    expect(write).toContain('transaction.write(operation.change.user_id, balance).await?;');
    expect(write.at(-1)).toBe('let written = operation.phase(Phase::Write, write).await?;');
    expect(write).not.toContain('held.check()?;');
    expect(textOf('atomic_three_trips', COMMIT)).toEqual(['operation.finish_with_journal(transaction, written).await']);
});

test('a phase with a function of its own is that function', () => {
    const read = textOf('event_sourced', READ);
    expect(read).toContain('async fn folded(operation: &Operation) -> Result<State, Failure> {');
    expect(read.at(-1)).toBe('}');
    expect(read).not.toContain('async fn keep(operation: &Operation, state: State) -> Result<(), Failure> {');
    // A head over several lines.
    expect(textOf('event_sourced', WRITE)).toContain('Ok(written)');
    expect(textOf('redis_lock_fenced', READ)).toContain('Ok(state)');
    expect(textOf('mutex', LOCK_WAIT)).toContain('let guard = operation.phase(Phase::LockWait, share.lock()).await?;');
    expect(textOf('redis_lock', LOCK_WAIT)).toContain('lease::acquire(&self.0, operation).await');
});

test('a file that hands over shows that part of the other', () => {
    expect(partsOf('mutex').map((part) => part.strategy)).toEqual(['mutex', 'none']);
    const [, part] = partsOf('mutex');
    expect(part?.lines[0]).toMatch(/^\/\/\/ The unprotected sequence/);
    expect(fileNamed('none').lines[(part?.first ?? 0) - 1]).toBe(part?.lines[0]);
    expect(partsOf('serializable').map((other) => other.strategy)).toEqual(['serializable', 'pessimistic']);
    expect(textOf('serializable', COMMIT)).toHaveLength(1);
    expect(partsOf('none')).toHaveLength(1);
});

test('what another task does is where its answer is waited for', () => {
    expect(textOf('batched', COMMIT)[0]).toContain('answered.await');
    expect(textOf('batched', LOCK_WAIT)[0]).toContain('Phase::LockWait');
});

test('a comment that names a phase does not do it', () => {
    const file = fileOf('made_up', ['// operation.read() and Phase::Read', '    let seen = operation.read().await?;'].join('\n'));
    expect(phaseLines([file], READ)).toEqual([new Set([2])]);
});

test('before a phase no line is marked', () => {
    expect(textOf('batched', Phase.UNSPECIFIED)).toEqual([]);
});

test('pieces of a line are the line', () => {
    for (const line of [...files.values()].flatMap((file) => file.lines)) {
        expect(piecesOf(line).map((piece) => piece.text).join('')).toBe(line);
    }
    expect(piecesOf('let a = "x // y"; // z').map((piece) => piece.kind).filter((kind) => kind !== 'plain')).toEqual(
        ['keyword', 'string', 'comment'],
    );
});
