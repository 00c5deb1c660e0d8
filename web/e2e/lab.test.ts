// The story of the page: money is lost, it shows how much and to whom, and a strategy that holds loses none. Every figure is
// held against the account's journal, which is read and folded here without the page.
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

/** Attacks with a strategy, from 1000.00, by the page alone; what it says of it. */
async function attack(tab: Tab, strategy: string): Promise<{ account: bigint; verdict: string | null; lost: bigint }> {
    await tab.go('attack');
    await tab.part('attack-opening_balance').fill('1000.00');
    await tab.part('strategy').locator(`option[value="${strategy}"]`).waitFor({ state: 'attached' });
    await tab.part('strategy').selectOption(strategy);
    await tab.part('attack').click();
    const ended = tab.page.locator(`[data-test="outcome"][data-strategy="${strategy}"]`);
    await ended.locator('[data-test="verdict"]').waitFor();
    const [, account = ''] = /user=(\d+)/.exec((await tab.part('to-history').first().getAttribute('href')) ?? '') ?? [];
    return {
        account: BigInt(account),
        verdict: await tab.part('verdict').first().getAttribute('data-verdict'),
        lost: hundredths(await tab.text('lost')),
    };
}

/** The account that lost, for the tests that look at it. */
let loser = 0n;

test('an attack with none: the page says LOST, to the cent what the journal comes to', async (context) => {
    const tab = await Tab.open(browser, server);
    const { account, verdict, lost } = await attack(tab, 'none');
    const truth = outcome(await journalOf(server, account));
    expect([verdict, lost]).toEqual(['LOST', truth.lost]);
    expect(lost).toBeGreaterThan(0n);
    note(context, `${truth.lostEntries.length} updates lost, ${await tab.text('lost')} in all`);
    loser = account;
    await tab.picture('attack');
    expect(tab.complaints).toEqual([]);
    await tab.close();
});

test('Lanes show its races, and what they say of a read and a write is what the journal says', async (context) => {
    const journal = await journalOf(server, loser);
    const stale = journal.filter(({ version, versionBefore }) => versionBefore < version - 1n);
    const tab = await Tab.open(browser, server);
    await tab.go(`lanes?user=${loser}`);
    await expect.poll(() => tab.text('race-count')).toBe(stale.length.toString());
    await tab.part('race').last().click();
    await tab.sees('span-card');
    const written = await tab.text('card-written-version');
    const entry = journal[Number(written) - 1];
    expect(entry?.requestId).toBe(await tab.text('card-request'));
    expect(entry?.balanceAfter).toBe(await tab.text('card-written-balance'));
    expect(stale).toContain(entry);
    // From the write back, phase by phase, to what it had read.
    await tab.page.locator('main').focus();
    await expect
        .poll(async () => {
            await tab.page.keyboard.press(',');
            const isRead = (await tab.part('card-read-version').count()) > 0;
            return isRead && (await tab.text('card-request')) === entry?.requestId;
        })
        .toBe(true);
    expect(await tab.text('card-read-version')).toBe(entry?.versionBefore.toString());
    expect(await tab.text('card-read-balance')).toBe(journal[Number(entry?.versionBefore) - 1]?.balanceAfter);
    note(context, `${stale.length} races`);
    expect(tab.complaints).toEqual([]);
    await tab.close();
});

test('Lanes: a link leads to a race, and pointing at the picture tells of what is there', async () => {
    const tab = await Tab.open(browser, server);
    await tab.go(`lanes?user=${loser}&race=2`);
    await expect.poll(() => tab.page.locator('[data-test="race"][aria-current="true"]').getAttribute('data-race')).toBe('2');
    await tab.sees('span-card');
    await tab.picture('lanes');
    await tab.page.keyboard.press('Escape');
    await expect.poll(() => tab.part('span-card').count()).toBe(0);
    const box = await tab.part('lanes-canvas').boundingBox();
    expect(box).not.toBeNull();
    // Along the first lane: there is something in it.
    await expect
        .poll(async () => {
            for (let x = 80; x < (box?.width ?? 0); x += 20) {
                await tab.page.mouse.move((box?.x ?? 0) + x, (box?.y ?? 0) + 32);
                if ((await tab.part('span-card').count()) > 0) {
                    return true;
                }
            }
            return false;
        })
        .toBe(true);
    expect(tab.complaints).toEqual([]);
    await tab.close();
});

test('History: the lost ones are those that the journal has off its path', async () => {
    const truth = outcome(await journalOf(server, loser));
    const tab = await Tab.open(browser, server);
    await tab.go(`history?user=${loser}`);
    await expect.poll(() => tab.text('history-lost')).toBe(truth.lostEntries.length.toString());
    const difference = (await tab.text('history-difference')).replace(/^\D\s/u, '');
    expect(hundredths(difference)).toBe(truth.lost);
    const first = tab.part('history-lost-row').first();
    const newest = truth.lostEntries.at(-1);
    expect(await first.getAttribute('data-version')).toBe(newest?.version.toString());
    await tab.picture('history');
    expect(tab.complaints).toEqual([]);
    await tab.close();
});

test('the same attack with pessimistic is CLEAN, and one click is enough for it', async () => {
    const tab = await Tab.open(browser, server);
    const { account, verdict, lost } = await attack(tab, 'pessimistic');
    expect([verdict, lost]).toEqual(['CLEAN', 0n]);
    expect(outcome(await journalOf(server, account))).toEqual({ lost: 0n, lostEntries: [] });
    await attack(tab, 'none');
    await tab.part('cure').click();
    await expect.poll(() => tab.part('verdict').first().getAttribute('data-verdict')).toBe('CLEAN');
    expect(tab.complaints).toEqual([]);
    await tab.close();
});

test('all strategies compared: none loses, and no other that says it never does', async (context) => {
    const tab = await Tab.open(browser, server);
    await tab.go('attack');
    await tab.part('compare-all').click();
    const rows = tab.part('compared');
    await expect.poll(() => rows.locator('[data-verdict]').count(), { timeout: 60_000 }).toBeGreaterThan(7);
    await expect.poll(() => tab.part('stop').count()).toBe(0);
    const lossy = rows.filter({ has: tab.page.locator('[data-verdict="LOST"]') });
    expect(await lossy.count()).toBe(1);
    expect(await lossy.getAttribute('data-strategy')).toBe('none');
    note(context, `${await rows.count()} strategies`);
    await tab.picture('compare');
    expect(tab.complaints).toEqual([]);
    await tab.close();
});

test('in Chinese, and in the dark', async () => {
    const tab = await Tab.open(browser, server, { locale: 'zh-CN', colorScheme: 'dark' });
    await tab.go(`lanes?user=${loser}&race=1`);
    await tab.sees('span-card');
    expect(await tab.page.locator('html').getAttribute('lang')).toBe('zh');
    expect(await tab.text('lanes-order')).toBe('按顺序');
    await tab.part('lanes-order').click();
    await expect.poll(() => tab.text('lanes-order')).toBe('按时间');
    await tab.picture('lanes-zh-dark');
    expect(tab.complaints).toEqual([]);
    await tab.close();
});
