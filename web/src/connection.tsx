// Whether the server answers, in the header: a sign and words, for everybody who cannot tell colors apart.
import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';

import { connection } from './link';
import { words } from './words';

const text = words({
    en: {
        opening: 'connecting…',
        live: 'connected',
        lost: (seconds: number) => `connection lost; trying again in ${seconds} s`,
        refused: 'refused by the server',
    },
    zh: {
        opening: '连接中…',
        live: '已连接',
        lost: (seconds: number) => `连接已断开，${seconds} 秒后重试`,
        refused: '服务器拒绝',
    },
});

const SIGNS = { opening: '◌', live: '●', lost: '✕', refused: '⊘' } as const;

export function ConnectionSign() {
    const now = useSignal(Date.now());
    const state = connection.value;
    useEffect(() => {
        if (state.is !== 'lost') {
            return undefined;
        }
        now.value = Date.now();
        const timer = setInterval(() => (now.value = Date.now()), 500);
        return () => clearInterval(timer);
    }, [state]);
    const said =
        state.is === 'lost' ? text.value.lost(Math.max(0, Math.ceil((state.retryAt - now.value) / 1000))) : text.value[state.is];
    const why = 'failure' in state ? `${state.failure.reason} ${state.failure.message}`.trim() : undefined;
    return (
        <span class={`connection ${state.is}`} role="status" title={why}>
            <span aria-hidden="true">{SIGNS[state.is]}</span> {said}
        </span>
    );
}
