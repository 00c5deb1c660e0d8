// What really happened, by the contract and not by the page: journals, folded here by themselves.
import { createClient } from '@connectrpc/connect';
import { createGrpcWebTransport } from '@connectrpc/connect-web';

import { AccountService, EntryKind, type Entry } from '../src/generated/zbl/v1/account_service_pb';
import { LabService } from '../src/generated/zbl/v1/lab_service_pb';
import type { Server } from './server';

/** A client of a server. */
export function clientOf(server: Server) {
    const transport = createGrpcWebTransport({ baseUrl: server.origin });
    return { accounts: createClient(AccountService, transport), lab: createClient(LabService, transport) };
}

/** An account's whole journal, oldest entry first. */
export async function journalOf(server: Server, userId: bigint): Promise<Entry[]> {
    const { accounts } = clientOf(server);
    const entries: Entry[] = [];
    let pageToken = '';
    do {
        const page = await accounts.listEntries({ userId, pageSize: 1000, pageToken });
        entries.push(...page.entries);
        pageToken = page.nextPageToken;
    } while (pageToken !== '');
    return entries;
}

/** What a journal comes to. Amounts in hundredths. */
export interface Outcome {
    /** The money that the balance has too much: what acknowledged deductions took and is still there. */
    readonly lost: bigint;
    /** The entries that are not on the path from the newest back to the opening. */
    readonly lostEntries: readonly Entry[];
}

/** What became of an account that was opened once and never reset. */
export function outcome(journal: readonly Entry[]): Outcome {
    const [opening] = journal;
    const newest = journal.at(-1);
    if (opening?.kind !== EntryKind.OPEN || newest === undefined) {
        throw new Error('the journal does not begin with its opening');
    }
    const surviving = new Set<bigint>();
    let at: Entry | undefined = newest;
    while (at !== undefined && at.version > 0n) {
        surviving.add(at.version);
        at = at.versionBefore > 0n ? journal[Number(at.versionBefore) - 1] : undefined;
    }
    const deltas = journal.slice(1).map(({ delta }) => hundredths(delta));
    const expected = deltas.reduce((sum, delta) => sum + delta, hundredths(opening.balanceAfter));
    return {
        lost: hundredths(newest.balanceAfter) - expected,
        lostEntries: journal.filter(({ version }) => !surviving.has(version)),
    };
}

/** A decimal string of the contract in hundredths. */
export function hundredths(amount: string): bigint {
    const match = /^([-−+]?)(\d+)\.(\d\d)$/.exec(amount.trim());
    if (match === null) {
        throw new Error(`${JSON.stringify(amount)} is not an amount of two decimals`);
    }
    const [, sign, whole = '', decimals = ''] = match;
    const units = BigInt(whole + decimals);
    return sign === '-' || sign === '−' ? -units : units;
}
