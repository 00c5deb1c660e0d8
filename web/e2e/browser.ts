// A real browser, and everything that it complains of: a test of the page ends with `tab.complaints` being empty.
import { mkdirSync } from 'node:fs';
import { join, resolve } from 'node:path';

import { chromium, type Browser, type BrowserContextOptions, type Page } from 'playwright-core';

import type { Server } from './server';

const CHROMIUM = process.env.ZBL_CHROMIUM ?? '/usr/bin/chromium';
/** Playwright gives up on what is not there after this, milliseconds. */
const PATIENCE_MS = 30_000;
/** What the browser writes to the console when nobody answers: the one complaint that may be allowed. */
const NOBODY_ANSWERS = /net::ERR_(CONNECTION_REFUSED|CONNECTION_RESET|EMPTY_RESPONSE|INCOMPLETE_CHUNKED_ENCODING)/;

/** Starts Chromium. */
export async function launch(): Promise<Browser> {
    return await chromium.launch({
        executablePath: CHROMIUM,
        // Without a sandbox, because tests run as root in containers, whose /dev/shm is small.
        args: ['--no-sandbox', '--disable-dev-shm-usage'],
    });
}

/** The page of a server in a tab of its own, with storage of its own. */
export class Tab {
    /** Errors on the console, exceptions, violations of the page's policy: none are expected. */
    readonly complaints: string[] = [];
    /** Whether the server is away just now, so that the network's errors are no complaint. */
    serverIsAway = false;
    readonly page: Page;
    readonly #origin: string;

    private constructor(page: Page, origin: string) {
        this.page = page;
        this.#origin = origin;
        page.setDefaultTimeout(PATIENCE_MS);
        page.on('pageerror', (error) => this.complaints.push(`exception: ${error.message}`));
        page.on('console', (message) => {
            const text = message.text();
            if (message.type() === 'error' && !(this.serverIsAway && NOBODY_ANSWERS.test(text))) {
                this.complaints.push(`console: ${text} (${message.location().url})`);
            }
        });
    }

    /** A new tab that is nowhere yet. */
    static async open(browser: Browser, server: Server, options: BrowserContextOptions = {}): Promise<Tab> {
        const context = await browser.newContext({
            viewport: { width: 1280, height: 800 },
            colorScheme: 'light',
            locale: 'en-US',
            ...options,
        });
        const page = await context.newPage();
        await page.addInitScript(() => {
            addEventListener('securitypolicyviolation', ({ violatedDirective, blockedURI }) => {
                console.error(`policy violated: ${violatedDirective} by ${blockedURI}`);
            });
        });
        return new Tab(page, server.origin);
    }

    /** Goes to a panel, such as `monitor?user=7`; only the part behind the # changes once the page is there. */
    async go(place: string): Promise<void> {
        await this.page.goto(`${this.#origin}/#/${place}`);
    }

    /** Waits until there is what has that hook. */
    async sees(hook: string): Promise<void> {
        await this.part(hook).first().waitFor();
    }

    /** What has that hook. */
    part(hook: string) {
        return this.page.locator(`[data-test="${hook}"]`);
    }

    /** The text of what has that hook, without space around it. */
    async text(hook: string): Promise<string> {
        return (await this.part(hook).first().innerText()).trim();
    }

    /** How the header says the connection is: its class. */
    async connection(): Promise<string> {
        return (await this.page.locator('header .connection').getAttribute('class')) ?? '';
    }

    /** Keeps a picture in the directory ZBL_SCREENSHOTS names; without it there are none. */
    async picture(name: string): Promise<void> {
        const directory = process.env.ZBL_SCREENSHOTS;
        if (directory !== undefined && directory !== '') {
            const place = resolve(import.meta.dirname, '../..', directory);
            mkdirSync(place, { recursive: true });
            await this.page.screenshot({ path: join(place, `${name}.png`) });
        }
    }

    async close(): Promise<void> {
        await this.page.context().close();
    }
}
