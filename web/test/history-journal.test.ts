// The journal of an account as the page holds it, when the service fails in between. What is asked of the service is counted.
import { Code, ConnectError } from '@connectrpc/connect';
import { expect, test, vi } from 'vitest';

const listEntries = vi.fn();
const follow = vi.fn(() => () => undefined);
vi.mock('../src/link', () => ({ follow }));
vi.mock('../src/service', () => ({
    accounts: { listEntries },
    failure: (error: Error) => ({ reason: '', message: error.message, away: true }),
    isCancelled: () => false,
}));
const { Following } = await import('../src/panels/history/journal');

/** A page of one entry. */
function page(version: number, nextPageToken: string) {
    return { entries: [{ version: BigInt(version), versionBefore: 0n, delta: '1.00', balanceAfter: '1.00' }], nextPageToken };
}

test('trying again what failed shows older ones, and follows the journal no second time', async () => {
    listEntries.mockResolvedValueOnce(page(2, 'older'));
    const following = new Following(7n);
    await vi.waitFor(() => expect(follow).toHaveBeenCalledTimes(1));
    listEntries.mockRejectedValueOnce(new ConnectError('nobody there', Code.Unavailable));
    await following.older();
    expect(following.journal.value.failure).not.toBeNull();
    listEntries.mockResolvedValueOnce(page(1, ''));
    await following.begin();
    const { entries, failure, olderToken } = following.journal.value;
    expect([entries.map((entry) => entry.version), failure, olderToken]).toEqual([[1, 2], null, null]);
    expect(follow).toHaveBeenCalledTimes(1);
    following.end();
});
