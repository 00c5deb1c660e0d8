// The monitor: what the server is doing, second by second, and what it was doing in the last quarter of an hour. It
// reads the status and one account's journal, and refuses to measure anything itself.
import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';

import { stateOf } from '../link';
import { note } from '../route';
import { words } from '../words';
import { Charts } from './monitor/charts';
import { accountFailure, chosenAccount, ring, STATUS, stoppedAt, watchAccount, watchStatus } from './monitor/feed';
import { clock, span } from './monitor/format';
import { Guards } from './monitor/guards';
import { lookedAt, MOMENTS_MAX, type Moment } from './monitor/ring';
import { Tiles } from './monitor/tiles';
import { Works } from './monitor/works';
import './monitor/monitor.css';

const text = words({
    en: {
        pause: 'Pause',
        live: 'Live',
        isLive: '● live',
        past: (at: string) => `❚❚ as of ${at}`,
        look: 'The moment to look at',
        kept: `This tab keeps the last ${MOMENTS_MAX / 60} minutes; rates are of the second before.`,
        account: 'Account',
        watch: 'Watch',
        choose: 'Name an account to see its balance beside what its journal says.',
        waiting: 'Waiting for the first status…',
        refused: 'The server refuses to tell:',
        labOff: 'Start it with both ports on loopback, or with --lab-token, and give the token above.',
        needsToken: 'Give the token above.',
        up: (time: string) => `up ${time}`,
        debug: 'debug build: several times slower than a release',
    },
    zh: {
        pause: '暂停',
        live: '实时',
        isLive: '● 实时',
        past: (at: string) => `❚❚ 截至 ${at}`,
        look: '要查看的时刻',
        kept: `本标签页保留最近 ${MOMENTS_MAX / 60} 分钟；速率为前一秒的值。`,
        account: '账户',
        watch: '观察',
        choose: '填写账户编号，即可对照其余额与流水。',
        waiting: '等待第一个状态…',
        refused: '服务器拒绝提供：',
        labOff: '请将两个端口都绑定到回环地址，或用 --lab-token 启动，并在上方填写令牌。',
        needsToken: '请在上方填写令牌。',
        up: (time: string) => `已运行 ${time}`,
        debug: '调试构建：比发布构建慢数倍',
    },
});

export function Monitor() {
    useEffect(() => {
        const ends = [watchStatus(), watchAccount()];
        return () => ends.forEach((end) => end());
    }, []);
    const { moments } = ring.value;
    const isRefused = stateOf(STATUS)?.is === 'refused';
    const moment = lookedAt(moments, stoppedAt.value);
    return (
        <div data-test="monitor">
            <Refusal />
            {moment === undefined && !isRefused && <p class="hint">{text.value.waiting}</p>}
            {moment && <Seen moments={moments} moment={moment} />}
        </div>
    );
}

/** Why there is nothing to see, and what to do about it. */
function Refusal() {
    const state = stateOf(STATUS);
    if (state?.is !== 'refused') {
        return null;
    }
    const { reason, message } = state.failure;
    return (
        <div class="failure" role="alert" data-test="monitor-refused">
            <div>{text.value.refused} <code>{reason}</code> {message}</div>
            <div>{reason === 'LAB_DISABLED' ? text.value.labOff : text.value.needsToken}</div>
        </div>
    );
}

function Seen({ moments, moment }: { readonly moments: readonly Moment[]; readonly moment: Moment }) {
    return (
        <>
            <section>
                <Identity moment={moment} />
                <Time moments={moments} moment={moment} />
            </section>
            <section>
                <Tiles moment={moment} />
                <Charts moments={moments} at={stoppedAt.value === null ? null : moment.at} />
                <AccountChoice />
            </section>
            <section class="monitor-parts">
                <Guards moment={moment} />
                <Works moment={moment} />
            </section>
        </>
    );
}

function Identity({ moment: { status } }: { readonly moment: Moment }) {
    const said = text.value;
    return (
        <div class="monitor-head" data-test="monitor-identity">
            <strong>{status.instance}</strong>
            <span>{status.version}</span>
            <span title={status.build === 'debug' ? said.debug : undefined}>{status.build}</span>
            <span>{status.store}</span>
            <span>{said.up(span(status.uptime))}</span>
        </div>
    );
}

/** Which moment is shown, and how to look at another. */
function Time({ moments, moment }: { readonly moments: readonly Moment[]; readonly moment: Moment }) {
    const said = text.value;
    const isLive = stoppedAt.value === null;
    const last = moments.length - 1;
    return (
        <>
            <div class="monitor-head">
                <button
                    type="button"
                    data-test="monitor-pause"
                    onClick={() => (stoppedAt.value = isLive ? moment.at : null)}
                >
                    {isLive ? said.pause : said.live}
                </button>
                <input
                    type="range"
                    data-test="monitor-slider"
                    aria-label={said.look}
                    aria-valuetext={clock(moment.at)}
                    min={0}
                    max={last}
                    value={isLive ? last : moments.indexOf(moment)}
                    onInput={(event) => (stoppedAt.value = moments[event.currentTarget.valueAsNumber]?.at ?? null)}
                />
                <span class={isLive ? 'kept' : 'past'} data-test="monitor-when">
                    {isLive ? said.isLive : said.past(clock(moment.at))}
                </span>
            </div>
            <p class="hint">{said.kept}</p>
        </>
    );
}

function AccountChoice() {
    const said = text.value;
    const chosen = chosenAccount();
    const typed = useSignal(chosen?.toString() ?? '');
    const problem = accountFailure.value;
    return (
        <form
            class="monitor-head"
            onSubmit={(event) => {
                event.preventDefault();
                note({ user: typed.value.trim() });
            }}
        >
            <label>
                {said.account}{' '}
                <input
                    data-test="monitor-account"
                    inputMode="numeric"
                    pattern="[1-9][0-9]{0,18}"
                    value={typed.value}
                    onInput={(event) => (typed.value = event.currentTarget.value)}
                />
            </label>
            <button type="submit" data-test="monitor-watch">{said.watch}</button>
            {chosen === null ? <span class="hint">{said.choose}</span> : null}
            {problem === null ? null : <span class="failure" role="alert">{problem.reason} {problem.message}</span>}
        </form>
    );
}
