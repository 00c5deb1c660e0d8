// What a test that passes has to add, such as a figure it measured: the reporter takes it along.
import type { TestContext } from 'vitest';

declare module 'vitest' {
    interface TaskMeta {
        note?: string;
    }
}

/** Adds a note to the test that runs. */
export function note({ task }: TestContext, text: string): void {
    task.meta.note = text;
}
