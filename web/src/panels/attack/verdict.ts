// What a result says, worked out for the eye: sums to the cent, ratios, what is left out. Pure: no page, no words.
import { Verdict, type AttackResult, type LostUpdate } from '../../generated/zbl/v1/lab_service_pb';
import { decimal, minor } from '../../money';

/** The lost updates that are listed; the rest is a count. More is for the journal's own views. */
export const PAIRS_SHOWN = 10;

/** A verdict's name, which is the same in every language of the page and in every tool. */
export type VerdictName = 'LOST' | 'CLEAN' | 'INCONCLUSIVE';

/** Its name; a verdict that is not known decides nothing. */
export function verdictName(verdict: Verdict): VerdictName {
    switch (verdict) {
        case Verdict.LOST:
            return 'LOST';
        case Verdict.CLEAN:
            return 'CLEAN';
        default:
            return 'INCONCLUSIVE';
    }
}

/** What a result comes to. Amounts are decimal strings. */
export interface Account {
    readonly verdict: VerdictName;
    /** What the balance should be: the opening balance less all that was acknowledged. */
    readonly expected: string;
    /** Whether more was sold than the opening balance could pay for. */
    readonly isOversold: boolean;
    /** The sum of the pairs that were told, and whether these are all there are. */
    readonly pairsSum: string;
    readonly areAllPairs: boolean;
    /** Whether pairs and what no pair explains add up to what is lost; null where not all pairs were told. */
    readonly addsUp: boolean | null;
    /** The pairs to list, and how many there are beside them. */
    readonly pairs: readonly LostUpdate[];
    readonly pairsLeftOut: bigint;
    /** Transactions per acknowledged change; null without any. */
    readonly attemptsPerChange: number | null;
    /** Operations without effect, most frequent reason first, and their number. */
    readonly failed: readonly (readonly [reason: string, count: bigint])[];
    readonly failedTotal: bigint;
}

/** An amount of the server's, which is always one. */
const units = (text: string): bigint => minor(text) ?? 0n;

/** What a result comes to. */
export function account(result: AttackResult): Account {
    const pairsSum = result.lostUpdates.reduce((sum, pair) => sum + units(pair.amount), 0n);
    const areAllPairs = BigInt(result.lostUpdates.length) === result.lostUpdatesTotal;
    const pairs = result.lostUpdates.slice(0, PAIRS_SHOWN);
    const failed = Object.entries(result.failed).sort(([, one], [, other]) => Number(other - one));
    return {
        verdict: verdictName(result.verdict),
        expected: decimal(units(result.openingBalance) - units(result.acknowledgedAmount)),
        isOversold: result.acknowledged > result.affordable,
        pairsSum: decimal(pairsSum),
        areAllPairs,
        addsUp: areAllPairs ? pairsSum + units(result.unattributed) === units(result.lost) : null,
        pairs,
        pairsLeftOut: result.lostUpdatesTotal - BigInt(pairs.length),
        attemptsPerChange: result.acknowledged === 0n ? null : Number(result.attempts) / Number(result.acknowledged),
        failed,
        failedTotal: failed.reduce((sum, [, count]) => sum + count, 0n),
    };
}

/** The beginning of a request id, enough to tell it from its neighbours. */
export function short(requestId: string): string {
    return requestId.slice(0, 8);
}

/** A figure of three digits, such as 1234, 56.7, 0.89. */
export function figure(value: number): string {
    const decimals = value >= 100 ? 0 : value >= 10 ? 1 : 2;
    return value.toFixed(decimals);
}

/** Microseconds as milliseconds. */
export function milliseconds(us: bigint): string {
    return figure(Number(us) / 1000);
}

/** Whether values are so far apart that only a logarithmic scale shows the small ones. */
export function isWide(values: readonly number[]): boolean {
    const seen = values.filter((value) => value > 0);
    return seen.length > 1 && Math.max(...seen) / Math.min(...seen) > 20;
}
