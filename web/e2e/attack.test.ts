// The attack: what the page says is lost is what the journal comes to, which is read and folded here without the page; and
// a strategy that holds loses nothing.
import type { Browser } from 'playwright-core';
import { beforeAll, expect, test } from 'vitest';

import { launch, Tab } from './browser';
import { note } from './note';
import { Server } from './server';
import { hundredths, journalOf, outcome } from './truth';

let server: Server;
let browser: Browser;

beforeAll(async () => {
    server = await Server.start('--compute-delay', '2ms');
    return () => server.end();
});

beforeAll(async () => {
    browser = await launch();
    return () => browser.close();
});

/** Attacks with a strategy, from 1000.00, by the page alone, until it says so; the account. */
async function attack(tab: Tab, strategy: string, verdict: string): Promise<bigint> {
    await tab.go('attack');
    const choice = tab.part('attack-strategy');
    await choice.locator(`option[value="${strategy}"]`).waitFor({ state: 'attached' });
    await choice.selectOption(strategy);
    await tab.part('attack-opening').fill('1000.00');
    await tab.part('attack-run').click();
    await tab.sees('verdict');
    await expect.poll(() => tab.text('verdict')).toBe(verdict);
    return BigInt(await tab.text('attack-user'));
}

test('an attack with none: LOST, to the cent what the journal comes to, and each pair is in it', async (context) => {
    const tab = await Tab.open(browser, server);
    const userId = await attack(tab, 'none', 'LOST');
    const journal = await journalOf(server, userId);
    const truth = outcome(journal);
    expect(truth.lost).toBeGreaterThan(0n);
    expect(journal[0]?.balanceAfter).toBe('1000.00');
    expect(hundredths(await tab.text('lost'))).toBe(truth.lost);
    expect(hundredths(await tab.text('pairs-sum'))).toBe(truth.lost);
    expect(await tab.text('final-balance')).toBe(journal.at(-1)?.balanceAfter);
    // Whole ids stand beside the short ones. Of many the page shows the first, and counts the rest.
    const victims = await tab.part('pair').locator('td:first-child .full').allTextContents();
    const lost = new Set(truth.lostEntries.map(({ requestId }) => requestId));
    expect(victims.filter((victim) => !lost.delete(victim))).toEqual([]);
    expect(victims).not.toEqual([]);
    const rest = (await tab.part('pairs-more').allInnerTexts()).join('');
    expect(Number(/\d+/.exec(rest)?.[0] ?? 0)).toBe(lost.size);
    note(context, `${await tab.text('lost')} lost in ${truth.lostEntries.length} updates`);
    await tab.picture('attack');
    expect(tab.complaints).toEqual([]);
    await tab.close();
});

test('switched to pessimistic, the same attack is CLEAN, and so is its journal', async () => {
    const tab = await Tab.open(browser, server);
    await attack(tab, 'none', 'LOST');
    const userId = await attack(tab, 'pessimistic', 'CLEAN');
    expect(await tab.text('lost')).toBe('0.00');
    const truth = outcome(await journalOf(server, userId));
    expect(truth).toEqual({ lost: 0n, lostEntries: [] });
    expect(tab.complaints).toEqual([]);
    await tab.close();
});
