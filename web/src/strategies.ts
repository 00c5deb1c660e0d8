// The strategies of the server, for every panel that lets the reader choose one. Owns the list and what guarantees are in
// words; refuses to choose.
import { create } from '@bufbuild/protobuf';
import { DurationSchema } from '@bufbuild/protobuf/wkt';
import { computed, signal } from '@preact/signals';
import { useEffect } from 'preact/hooks';

import { Guarantee, type Strategy } from './generated/zbl/v1/account_service_pb';
import { follow } from './link';
import { accounts, lab } from './service';
import { words } from './words';

/** How often the server says that it is still there and what it offers, seconds: the list hardly ever changes. */
const STATUS_SECONDS = 10n;

/** All strategies, in the server's order; empty until it has told. */
export const strategies = signal<readonly Strategy[]>([]);

/** Those that can be used on this server. */
export const available = computed(() => strategies.value.filter((strategy) => strategy.available));

/** The strategy of that name. */
export function strategyOf(name: string): Strategy | undefined {
    return strategies.value.find((strategy) => strategy.name === name);
}

/** What a guarantee is to somebody who hears of it for the first time. */
export const guarantees = words<Record<Guarantee, string>>({
    en: {
        [Guarantee.UNSPECIFIED]: 'promises nothing known',
        [Guarantee.LOSES_UPDATES]: 'loses updates',
        [Guarantee.ONE_PROCESS]: 'safe within one process only',
        [Guarantee.WHILE_LEASE_HOLDS]: 'safe while the lease holds',
        [Guarantee.ALWAYS]: 'always safe',
    },
    zh: {
        [Guarantee.UNSPECIFIED]: '保证未知',
        [Guarantee.LOSES_UPDATES]: '会丢失更新',
        [Guarantee.ONE_PROCESS]: '仅在单个进程内安全',
        [Guarantee.WHILE_LEASE_HOLDS]: '租约有效期内安全',
        [Guarantee.ALWAYS]: '始终安全',
    },
});

/**
 * The list at once, which needs no lab, and then the lab's status: so the header tells when the server goes, and a token
 * that is missing is asked for before anything is begun.
 */
async function* told(end: AbortSignal): AsyncGenerator<readonly Strategy[]> {
    const list = await accounts.listStrategies({}, { signal: end });
    yield list.strategies;
    const interval = create(DurationSchema, { seconds: STATUS_SECONDS });
    for await (const { status } of lab.watchStatus({ interval }, { signal: end })) {
        yield status?.strategies ?? list.strategies;
    }
}

/** Keeps the list while the component is shown. */
export function useStrategies(): void {
    useEffect(() => follow('strategies', told, (list) => (strategies.value = list)), []);
}
