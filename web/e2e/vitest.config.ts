// The browser tests: the built server and a real Chromium, one file after another, because each wants the machine.
import { defineConfig } from 'vitest/config';

export default defineConfig({
    root: import.meta.dirname,
    cacheDir: '../node_modules/.vite/e2e',
    test: {
        include: ['*.test.ts'],
        fileParallelism: false,
        // A debug build on a busy machine; what is waited for is there within seconds otherwise.
        testTimeout: 120_000,
        hookTimeout: 120_000,
        expect: { poll: { timeout: 30_000, interval: 100 } },
    },
});
