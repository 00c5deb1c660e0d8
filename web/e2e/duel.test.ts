// The duel: a losing schedule is found where there is one, and played; where there is none, all there are were.
import type { Browser } from 'playwright-core';
import { beforeAll, expect, test } from 'vitest';

import { launch, Tab } from './browser';
import { note } from './note';
import { replay, Server } from './server';
import { hundredths, journalOf, outcome } from './truth';

let server: Server;
let browser: Browser;

beforeAll(async () => {
    server = await Server.start();
    return () => server.end();
});

beforeAll(async () => {
    browser = await launch();
    return () => browser.close();
});

/** Opens the panel with two operations of a strategy, chosen as a reader would. */
async function duel(strategy: string): Promise<Tab> {
    const tab = await Tab.open(browser, server);
    await tab.go('duel');
    const choices = tab.part('duel-strategy');
    await choices.first().locator(`option[value="${strategy}"]`).waitFor({ state: 'attached' });
    await choices.nth(0).selectOption(strategy);
    await choices.nth(1).selectOption(strategy);
    return tab;
}

test('Duel finds a schedule by which none loses, and plays it; its token plays it again', async (context) => {
    const tab = await duel('none');
    await tab.part('duel-find').click();
    await tab.sees('duel-found');
    await tab.part('duel-pace').selectOption('fast');
    await tab.part('duel-play').click();
    await tab.sees('duel-verdict');
    expect(await tab.part('duel-verdict').getAttribute('data-verdict')).toBe('LOST');
    const [, account = ''] = /account (\d+)/.exec(await tab.page.locator('.duel .account').innerText()) ?? [];
    const truth = outcome(await journalOf(server, BigInt(account)));
    const lost = await tab.part('duel-lost').getAttribute('data-lost');
    expect(hundredths(lost ?? '')).toBe(truth.lost);
    expect(await tab.part('duel-overwrote').count()).toBe(truth.lostEntries.length);
    expect(truth.lost).toBeGreaterThan(0n);
    note(context, `${await tab.text('duel-schedule')}: ${lost} lost`);
    expect(await replay(await tab.text('duel-token'))).toContain(`LOST, ${lost} lost`);
    await tab.picture('duel');
    expect(tab.complaints).toEqual([]);
    await tab.close();
});

test('Duel steps as the reader says, and shows the strategy\'s own source for each', async () => {
    const tab = await duel('none');
    await tab.part('duel-start').click();
    for (const [at, step] of ['r1', 'r2'].entries()) {
        await tab.page.locator(`[data-test="duel-step"][data-step="${step}"]`).click();
        await expect.poll(async () => (await tab.text('duel-schedule')).split(' ')).toHaveLength(at + 1);
    }
    const current = tab.page.locator('[data-test="duel-source-line"][aria-current="true"]');
    await expect.poll(() => current.count()).toBeGreaterThan(0);
    const source = await (await fetch(`${server.origin}/source/none.rs`)).text();
    const [line = ''] = await current.locator('.text').allInnerTexts();
    expect(source).toContain(line.trim());
    expect(tab.complaints).toEqual([]);
    await tab.close();
});

test('Duel finds no schedule by which pessimistic loses, of all there are', async (context) => {
    const tab = await duel('pessimistic');
    await tab.part('duel-find').click();
    await tab.sees('duel-exhausted');
    expect(await tab.part('duel-exhausted').getAttribute('data-all')).toBe('true');
    note(context, await tab.text('duel-exhausted'));
    expect(tab.complaints).toEqual([]);
    await tab.close();
});
