// Tabs that stay open while a server is busy: what they hold of the machine's memory stays bounded. ZBL_SOAK_SECONDS
// says how long; only minutes tell whether memory grows, so that a short run looks at the bound alone.
import { setTimeout as pause } from 'node:timers/promises';

import type { Browser, CDPSession } from 'playwright-core';
import { beforeAll, expect, test } from 'vitest';

import { launch, Tab } from './browser';
import { note } from './note';
import { Load, Server } from './server';
import { clientOf } from './truth';

const SECONDS = Number.parseInt(process.env.ZBL_SOAK_SECONDS ?? '20', 10);
/** From here on growth can be told from warming up. */
const LONG_SECONDS = 120;
/** How many times memory is looked at, at the least, and how often at the most, seconds. */
const SAMPLES_MIN = 10;
const SAMPLE_EVERY_S = 5;
/** Deductions a second that lose money, for races. */
const LOSSY_RATE = 20;
/** And of those that lose none: their spans fill what the page holds within the first quarter of ten minutes. */
const RATE = 200;
/** What a tab may hold once its garbage is collected, bytes: rings that are full, and the page itself. */
const HEAP_MAX = 150e6;
/** By how much the last quarter of a long run may be above the second: noise, and a monitor's ring that still fills. */
const GROWTH_MAX = 0.1;
const GROWTH_BYTES = 4e6;

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

const claim = SECONDS < LONG_SECONDS ? 'within its bound' : 'bounded, and flat';

test(`${SECONDS} s under load: the memory of Lanes and of Monitor is ${claim}`, async (context) => {
    const { userId } = await clientOf(server).accounts.openAccount({ openingBalance: '1000000.00' });
    const of = (user: bigint, rate: number, strategy: string): readonly string[] => {
        return ['--rate', `${rate}`, '--from-user', `${user}`, '--strategy', strategy];
    };
    const other = await clientOf(server).accounts.openAccount({ openingBalance: '1000000.00' });
    const loads = [
        Load.start(server, SECONDS + 120, ...of(userId, LOSSY_RATE, 'none')),
        Load.start(server, SECONDS + 120, ...of(other.userId, RATE, 'batched')),
    ];
    try {
        const lanes = await Watched.open(`lanes?user=${userId}`);
        const monitor = await Watched.open(`monitor?user=${userId}`);
        await expect.poll(async () => Number.parseFloat(await monitor.tab.text('monitor-qps'))).toBeGreaterThan(0);
        const every = Math.min(SAMPLE_EVERY_S, SECONDS / SAMPLES_MIN);
        for (let elapsed = 0; elapsed < SECONDS; elapsed += every) {
            await Promise.all([lanes.weigh(), monitor.weigh()]);
            // Between two looks; nothing is waited for.
            await pause(every * 1000);
        }
        expect(loads.map((load) => load.trouble)).toEqual([null, null]);
        note(context, `Lanes ${lanes.figures()}; Monitor ${monitor.figures()}`);
        await lanes.judge();
        await monitor.judge();
    } finally {
        await Promise.all(loads.map((load) => load.end()));
    }
}, (SECONDS + 180) * 1000);

/** A tab whose memory is looked at. */
class Watched {
    readonly #samples: number[] = [];
    readonly #devtools: CDPSession;
    readonly tab: Tab;

    private constructor(tab: Tab, devtools: CDPSession) {
        this.tab = tab;
        this.#devtools = devtools;
    }

    static async open(place: string): Promise<Watched> {
        const tab = await Tab.open(browser, server);
        await tab.go(place);
        await expect.poll(() => tab.connection()).toContain('live');
        return new Watched(tab, await tab.page.context().newCDPSession(tab.page));
    }

    /** Collects its garbage, and notes what is left: objects, DOM and buffers. */
    async weigh(): Promise<void> {
        await this.#devtools.send('HeapProfiler.collectGarbage');
        const heap = await this.#devtools.send('Runtime.getHeapUsage');
        this.#samples.push(heap.usedSize + heap.embedderHeapUsedSize + heap.backingStorageSize);
    }

    figures(): string {
        const [second, last] = this.#quarters();
        const [from, to, most] = [second, last, Math.max(...this.#samples)].map((bytes) => (bytes / 1e6).toFixed(1));
        return `${this.#samples.length} samples, median ${from} MB, then ${to} MB, at most ${most} MB`;
    }

    /** The medians of the second quarter, the first being for warming up, and of the last. */
    #quarters(): [number, number] {
        const quarter = Math.floor(this.#samples.length / 4);
        return [median(this.#samples.slice(quarter, 2 * quarter)), median(this.#samples.slice(3 * quarter))];
    }

    async judge(): Promise<void> {
        expect(this.#samples.length).toBeGreaterThanOrEqual(SAMPLES_MIN);
        expect(Math.max(...this.#samples)).toBeLessThan(HEAP_MAX);
        const [second, last] = this.#quarters();
        if (SECONDS >= LONG_SECONDS) {
            expect(last).toBeLessThan(second * (1 + GROWTH_MAX) + GROWTH_BYTES);
        }
        // It has not fallen silent: that would be flat, too.
        expect(await this.tab.connection()).toContain('live');
        expect(this.tab.complaints).toEqual([]);
        await this.tab.close();
    }
}

function median(samples: readonly number[]): number {
    return samples.toSorted((a, b) => a - b)[Math.floor(samples.length / 2)] ?? Infinity;
}
