// Lanes and History of an account that lost money: races are drawn, and what is shown of a write is what the journal says.
import type { Browser } from 'playwright-core';
import { beforeAll, expect, test } from 'vitest';

import { launch, Tab } from './browser';
import { Server } from './server';
import { clientOf, hundredths, journalOf, outcome } from './truth';

let server: Server;
let browser: Browser;
/** The account that lost. */
let loser = 0n;

beforeAll(async () => {
    server = await Server.start('--compute-delay', '2ms');
    for await (const { step } of clientOf(server).lab.runAttack({ strategy: 'none', workers: 10, deductions: 10 })) {
        loser = step.case === 'result' ? step.value.userId : loser;
    }
    return () => server.end();
});

beforeAll(async () => {
    browser = await launch();
    return () => browser.close();
});

test('Lanes show the races of an attack, and what they say of a write is what the journal says', async () => {
    const journal = await journalOf(server, loser);
    const tab = await Tab.open(browser, server);
    await tab.go(`lanes?user=${loser}&race=1`);
    await tab.sees('lanes-race-count');
    await expect.poll(async () => Number.parseInt(await tab.text('lanes-race-count'), 10)).toBeGreaterThan(0);
    await tab.part('lanes-next-race').click();
    await tab.sees('lanes-card');
    const version = Number.parseInt(await tab.text('lanes-written-version'), 10);
    expect(await tab.text('lanes-written-balance')).toBe(journal[version - 1]?.balanceAfter);
    expect(await tab.text('lanes-request-id')).toBe(journal[version - 1]?.requestId);
    await tab.picture('lanes');
    expect(tab.complaints).toEqual([]);
    await tab.close();
});

test('History shows as many lost as are off the path of the journal, and as much', async () => {
    const truth = outcome(await journalOf(server, loser));
    const tab = await Tab.open(browser, server);
    await tab.go(`history?user=${loser}`);
    await tab.sees('history-lost-count');
    await expect.poll(async () => Number.parseInt(await tab.text('history-lost-count'), 10)).toBe(truth.lostEntries.length);
    expect(hundredths(await tab.text('history-lost'))).toBe(truth.lost);
    await tab.picture('history');
    expect(tab.complaints).toEqual([]);
    await tab.close();
});
