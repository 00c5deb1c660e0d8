// How the page is built: everything into dist/, which the server embeds; nothing inline, nothing from elsewhere.
import { defineConfig } from 'vitest/config';

export default defineConfig({
    base: './',
    build: {
        target: 'es2022',
        // A file of its own for everything: data: URLs and inline modules are not allowed by the page's policy.
        assetsInlineLimit: 0,
        modulePreload: { polyfill: false },
        chunkSizeWarningLimit: 1200,
    },
    esbuild: { jsx: 'automatic', jsxImportSource: 'preact' },
    // `npm run dev` beside a server on its usual port.
    server: { proxy: { '/zbl.v1.': 'http://127.0.0.1:8080', '/source/': 'http://127.0.0.1:8080' } },
    test: { include: ['test/**/*.test.ts', 'test/**/*.test.tsx'] },
});
