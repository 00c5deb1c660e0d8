// The token: asked for once the server has refused a call without one.
import { useSignal } from '@preact/signals';

import { connection } from './link';
import { token } from './service';
import { words } from './words';

const text = words({
    en: {
        label: 'Token',
        hint: 'what the server was given as --auth-token or --lab-token',
        use: 'Use',
        off: 'the lab is off here: bind both ports to loopback, or start the server with --lab-token',
    },
    zh: {
        label: '令牌',
        hint: '启动服务器时 --auth-token 或 --lab-token 的值',
        use: '使用',
        off: '此服务器未开放实验室：请将两个端口绑定到回环地址，或用 --lab-token 启动',
    },
});

export function TokenField() {
    const typed = useSignal('');
    const state = connection.value;
    const reason = 'failure' in state ? state.failure.reason : '';
    if (reason === 'LAB_DISABLED') {
        return <span class="hint">{text.value.off}</span>;
    }
    if (reason !== 'UNAUTHENTICATED' && reason !== 'LAB_UNAUTHENTICATED') {
        return null;
    }
    return (
        <form
            class="token"
            onSubmit={(event) => {
                event.preventDefault();
                token.value = typed.value.trim();
            }}
        >
            <label>
                {text.value.label}{' '}
                <input
                    type="password"
                    autoComplete="off"
                    title={text.value.hint}
                    value={typed.value}
                    onInput={(event) => (typed.value = event.currentTarget.value)}
                />
            </label>
            <button type="submit">{text.value.use}</button>
        </form>
    );
}
