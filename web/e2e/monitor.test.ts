// The monitor under load, and a page whose server is killed and comes back.
import type { Browser } from 'playwright-core';
import { beforeAll, expect, test } from 'vitest';

import { launch, Tab } from './browser';
import { Load, Server } from './server';
import { clientOf, journalOf } from './truth';

let server: Server;
let browser: Browser;
/** Deductions a second, which a debug build on a busy machine does beside a browser. */
const RATE = 40;

beforeAll(async () => {
    server = await Server.start('--compute-delay', '2ms');
    return () => server.end();
});

beforeAll(async () => {
    browser = await launch();
    return () => browser.close();
});

test('Monitor shows the rates of a load, and holds still where the reader stops', async () => {
    const { accounts } = clientOf(server);
    const { userId } = await accounts.openAccount({ openingBalance: '100000.00' });
    const tab = await Tab.open(browser, server);
    const load = Load.start(server, 60, '--rate', `${RATE}`, '--from-user', `${userId}`, '--strategy', 'pessimistic');
    try {
        await tab.go(`monitor?user=${userId}`);
        await tab.sees('monitor-qps');
        // Two thirds of what is asked for: a second of a busy machine is not always one.
        await expect.poll(() => figure(tab, 'monitor-qps')).toBeGreaterThan((RATE * 2) / 3);
        await expect.poll(() => figure(tab, 'monitor-p99')).toBeGreaterThan(0);
        expect(load.trouble).toBeNull();
        // Enough of them to make a line.
        const slider = tab.part('monitor-slider');
        await expect.poll(async () => Number(await slider.getAttribute('max'))).toBeGreaterThan(9);
        await tab.picture('monitor');

        await tab.part('monitor-pause').click();
        const [when, balance] = [await tab.text('monitor-when'), await tab.text('monitor-balance')];
        const written = (await journalOf(server, userId)).length;
        // Time goes on, and the moment that is looked at does not.
        const last = Number(await slider.getAttribute('max'));
        await expect.poll(async () => Number(await slider.getAttribute('max'))).toBeGreaterThan(last + 1);
        expect((await journalOf(server, userId)).length).toBeGreaterThan(written);
        expect([await tab.text('monitor-when'), await tab.text('monitor-balance')]).toEqual([when, balance]);
        await tab.part('monitor-pause').click();
        await expect.poll(() => tab.text('monitor-balance')).not.toBe(balance);
    } finally {
        await load.end();
    }
    // Now that nobody changes it: what the page shows is what the journal says.
    const balanceOf = async (): Promise<string> => (await journalOf(server, userId)).at(-1)?.balanceAfter ?? '';
    await expect.poll(async () => (await tab.text('monitor-balance')) === (await balanceOf())).toBe(true);
    expect(tab.complaints).toEqual([]);
    await tab.close();
});

test('a server that is killed and comes back: the page says so, and goes on without being loaded again', async () => {
    const tab = await Tab.open(browser, server);
    await tab.go('monitor');
    await tab.sees('monitor-qps');
    await expect.poll(() => tab.connection()).toContain('live');
    // Gone if the page were loaded again.
    await tab.page.evaluate(() => document.documentElement.setAttribute('data-same-page', 'yes'));
    const epoch = await tab.text('monitor-timeline');
    tab.serverIsAway = true;
    await server.kill();
    await expect.poll(() => tab.connection()).toContain('lost');
    expect(await tab.page.locator('header .connection').innerText()).toContain('connection lost');
    await server.restart();
    await expect.poll(() => tab.connection()).toContain('live');
    tab.serverIsAway = false;
    await expect.poll(() => tab.text('monitor-timeline')).not.toBe(epoch);
    expect(await tab.page.locator('html').getAttribute('data-same-page')).toBe('yes');
    // Rates of the new run, and none below zero.
    await expect.poll(() => figure(tab, 'monitor-succeeded')).toBe(0);
    expect(tab.complaints).toEqual([]);
    await tab.close();
});

/** The number that a part of the page begins with; NaN while there is none. */
async function figure(tab: Tab, hook: string): Promise<number> {
    return Number.parseFloat(await tab.text(hook));
}
