// What an account should hold by its journal, beside what it does. Pure; owns no state.
import { EntryKind, type Entry } from '../../generated/zbl/v1/account_service_pb';
import { minor } from '../../money';

/** An account's journal, folded up to a version. Amounts in minor units. */
export interface Fold {
    readonly userId: bigint;
    /** The newest version that was folded; 0n before the first. */
    readonly version: bigint;
    /** What the newest entry left behind: the stored balance. */
    readonly actual: bigint;
    /** What the newest OPEN, RESET or REPAIR left behind, and every change since. */
    readonly expected: bigint;
}

/** The fold of an account of which nothing was read yet. */
export function unread(userId: bigint): Fold {
    return { userId, version: 0n, actual: 0n, expected: 0n };
}

const BEGINNINGS: readonly EntryKind[] = [EntryKind.OPEN, EntryKind.RESET, EntryKind.REPAIR];

/** The fold with one more entry. */
export function folded(fold: Fold, entry: Entry): Fold {
    const actual = minor(entry.balanceAfter) ?? fold.actual;
    const expected = BEGINNINGS.includes(entry.kind) ? actual : fold.expected + (minor(entry.delta) ?? 0n);
    return { userId: fold.userId, version: entry.version, actual, expected };
}
