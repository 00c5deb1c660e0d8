// A call that failed, as a panel tells it: the reason of the error table, the server's words, and what to do about it.
import type { Failure } from './service';
import { words } from './words';

const text = words<{ away: string; remedies: Record<string, string> }>({
    en: {
        away: 'The server is gone. What it had acknowledged is in its journal; start it again and repeat.',
        remedies: {
            LAB_DISABLED: 'The lab is off here: bind both ports to loopback, or start the server with --lab-token.',
            LAB_UNAUTHENTICATED: 'The lab wants the token it was started with: enter it at the top.',
            UNAUTHENTICATED: 'The server wants the token it was started with: enter it at the top.',
            RATE_LIMITED: 'The server takes so many calls a second (--rate-limit): wait a moment, then repeat.',
            OVERLOADED: 'The lab does one thing at a time: wait until the other is over, then repeat.',
            STRATEGY_UNAVAILABLE: 'Choose another strategy, or start the server with what this one needs.',
            CIRCUIT_OPEN: 'The database failed too often and is left alone for some seconds: then repeat.',
            BACKEND_DOWN: 'The database or Redis does not answer: start it again, then repeat.',
        },
    },
    zh: {
        away: '服务器已断开。已确认的变更都在它的流水里；请重新启动服务器后再试。',
        remedies: {
            LAB_DISABLED: '此服务器未开放实验室：请将两个端口绑定到回环地址，或用 --lab-token 启动。',
            LAB_UNAUTHENTICATED: '实验室需要启动时设置的令牌：请在页面顶部输入。',
            UNAUTHENTICATED: '服务器需要启动时设置的令牌：请在页面顶部输入。',
            RATE_LIMITED: '服务器限制每秒调用次数（--rate-limit）：稍等片刻再试。',
            OVERLOADED: '实验室一次只做一件事：等另一个结束后再试。',
            STRATEGY_UNAVAILABLE: '请换一种策略，或补上它所需的组件后重启服务器。',
            CIRCUIT_OPEN: '数据库连续失败，熔断器已打开：几秒后再试。',
            BACKEND_DOWN: '数据库或 Redis 没有响应：恢复后再试。',
        },
    },
});

export function Trouble({ failure }: { readonly failure: Failure }) {
    const remedy = failure.away ? text.value.away : text.value.remedies[failure.reason];
    return (
        <p class="failure" role="alert" data-test="failure">
            {failure.reason !== '' && <code>{failure.reason}</code>} {failure.message}
            {remedy !== undefined && <><br />{remedy}</>}
        </p>
    );
}
