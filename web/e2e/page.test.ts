// What all panels have in common: languages, themes, the token, the page's policy, how fast it is there and how large.
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';

import type { Browser } from 'playwright-core';
import { beforeAll, expect, onTestFinished, test } from 'vitest';

import { launch, Tab } from './browser';
import { note } from './note';
import { Server } from './server';

const PANELS = ['attack', 'lanes', 'history', 'duel', 'monitor'] as const;
/** What the page may take to be there on loopback, milliseconds, and its scripts, bytes once compressed. */
const LOAD_MS_MAX = 1_000;
const SCRIPT_BYTES_MAX = 600_000;
const TOKEN = 'a token of the tests';

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

test('every panel opens, in light and dark, in English and Chinese, and nothing is complained of', async () => {
    const tab = await Tab.open(browser, server);
    await tab.go('attack');
    const main = tab.page.locator('main#panel');
    const theme = (): Promise<string | null> => tab.page.locator('html').getAttribute('data-theme');
    await main.waitFor();
    expect(await theme()).toBe('light');
    await tab.page.getByRole('button', { name: 'Dark' }).click();
    expect(await theme()).toBe('dark');
    await everyPanel(tab);
    await tab.page.getByRole('combobox', { name: 'Language' }).selectOption('zh');
    expect(await tab.page.locator('html').getAttribute('lang')).toBe('zh');
    await tab.page.getByRole('button', { name: '浅色' }).click();
    await everyPanel(tab);
    // Both are remembered.
    await tab.page.reload();
    await main.waitFor();
    expect([await theme(), await tab.page.locator('html').getAttribute('lang')]).toEqual(['light', 'zh']);
    expect(tab.complaints).toEqual([]);
    await tab.close();
});

test('the skip link goes to the panel that is open, and leaves the address alone', async () => {
    const tab = await Tab.open(browser, server);
    await tab.go('monitor?user=1');
    await tab.page.locator('main#panel').waitFor();
    const address = tab.page.url();
    await tab.page.locator('a.skip').focus();
    await tab.page.keyboard.press('Enter');
    const focused = (): Promise<string | undefined> => tab.page.evaluate(() => document.activeElement?.id);
    expect([await focused(), tab.page.url()]).toEqual(['panel', address]);
    await tab.close();
});

/** Looks at each panel by its link. */
async function everyPanel(tab: Tab): Promise<void> {
    for (const panel of PANELS) {
        await tab.page.locator(`nav a[href^="#/${panel}"]`).click();
        await tab.page.locator(`nav a[href^="#/${panel}"][aria-current="page"]`).waitFor();
        await tab.page.locator('main#panel > *').first().waitFor();
        expect((await tab.page.locator('main#panel').innerText()).length).toBeGreaterThan(20);
    }
    await tab.sees('monitor-qps');
}

test('the browser\'s language is the page\'s', async () => {
    const tab = await Tab.open(browser, server, { locale: 'zh-CN' });
    await tab.go('monitor');
    await tab.page.getByRole('link', { name: '监控' }).waitFor();
    expect(tab.complaints).toEqual([]);
    await tab.close();
});

test('a server that wants a token: the page asks for it, and works with it', async () => {
    const guarded = await Server.start('--lab-token', TOKEN);
    const tab = await Tab.open(browser, guarded);
    try {
        await tab.go('monitor');
        await tab.sees('monitor-refused');
        const form = tab.page.locator('form.token');
        await form.locator('input').fill('not this one');
        await form.locator('button').click();
        await tab.sees('monitor-refused');
        await form.locator('input').fill(TOKEN);
        await form.locator('button').click();
        await tab.sees('monitor-qps');
        await form.waitFor({ state: 'detached' });
        expect(tab.complaints).toEqual([]);
    } finally {
        await tab.close();
        await guarded.end();
    }
});

test('the policy of the page lets nothing in but its own files, and nobody frame it', async () => {
    const { headers } = await fetch(`${server.origin}/`);
    const policy = (headers.get('content-security-policy') ?? '').split(';').map((directive) => directive.trim());
    for (const directive of ["default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'"]) {
        expect(policy).toContain(directive);
    }
    expect(policy).toContain("frame-ancestors 'none'");
    expect(headers.get('access-control-allow-origin')).toBeNull();
});

test('an inline script is not run', async () => {
    const tab = await Tab.open(browser, server);
    await tab.go('attack');
    await tab.page.locator('main#panel').waitFor();
    await tab.page.evaluate(() => {
        const script = document.createElement('script');
        script.textContent = 'document.documentElement.dataset.inline = "ran"';
        document.body.append(script);
    });
    await expect.poll(() => tab.complaints.join('\n')).toContain('policy violated: script-src');
    expect(await tab.page.locator('html').getAttribute('data-inline')).toBeNull();
    await tab.close();
});

test('a page from elsewhere is answered nothing', async () => {
    // With an icon of its own, or the browser would ask for one just then.
    const other = '<!doctype html><link rel="icon" href="data:,">another site';
    const elsewhere = createServer((_, response) => response.setHeader('content-type', 'text/html').end(other));
    elsewhere.listen(0, '127.0.0.1');
    onTestFinished(() => void elsewhere.close());
    await once(elsewhere, 'listening');
    const { port } = elsewhere.address() as AddressInfo;
    const tab = await Tab.open(browser, server);
    await tab.page.goto(`http://127.0.0.1:${port}`);
    // What came over the wire: the page itself is shown nothing.
    const devtools = await tab.page.context().newCDPSession(tab.page);
    await devtools.send('Network.enable');
    const statuses: number[] = [];
    devtools.on('Network.responseReceivedExtraInfo', ({ statusCode }) => statuses.push(statusCode));
    // The one kind of call that browsers send to others without asking first.
    const call = (url: string): Promise<string> =>
        fetch(url, { method: 'POST', mode: 'no-cors', body: '' }).then(() => 'answered', () => 'nothing');
    expect(await tab.page.evaluate(call, `${server.origin}/zbl.v1.AccountService/Deduct`)).toBe('nothing');
    await expect.poll(() => statuses).toEqual([403]);
    await tab.close();
});

test(`the page is there in less than ${LOAD_MS_MAX} ms`, async (context) => {
    const times: number[] = [];
    for (let load = 0; load < 5; load += 1) {
        // A tab of its own has nothing cached.
        const tab = await Tab.open(browser, server);
        await tab.go('attack');
        await tab.page.locator('main#panel > *').first().waitFor();
        times.push(await tab.page.evaluate(() => {
            const [loaded] = performance.getEntriesByType('navigation') as PerformanceNavigationTiming[];
            const painted = performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0;
            return Math.max(loaded?.loadEventEnd ?? Infinity, painted);
        }));
        await tab.close();
    }
    const median = times.toSorted((a, b) => a - b)[2] ?? Infinity;
    note(context, `loaded and painted in ${Math.round(median)} ms, the median of ${times.length}`);
    expect(median).toBeGreaterThan(0);
    expect(median).toBeLessThan(LOAD_MS_MAX);
});

test(`its scripts are not larger than ${SCRIPT_BYTES_MAX / 1000} kB compressed`, (context) => {
    const assets = join(import.meta.dirname, '../dist/assets');
    const scripts = readdirSync(assets).filter((name) => name.endsWith('.js'));
    const bytes = scripts.reduce((sum, name) => sum + gzipSync(readFileSync(join(assets, name))).length, 0);
    note(context, `${(bytes / 1000).toFixed(0)} kB of JavaScript, gzipped`);
    expect(scripts).not.toEqual([]);
    expect(bytes).toBeLessThanOrEqual(SCRIPT_BYTES_MAX);
});
