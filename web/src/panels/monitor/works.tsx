// What the server is made of beside its guards: batches, cache, queue, reports, timeline, database.
import type {
    BatchStatus,
    CacheStatus,
    ProjectionStatus,
    QueueStatus,
    TimelineStatus,
} from '../../generated/zbl/v1/lab_service_pb';
import { words } from '../../words';
import { inMilliseconds, NONE, rough, span } from './format';
import { Facts } from './pieces';
import { milliseconds } from './rates';
import type { Moment } from './ring';

const text = words({
    en: {
        database: 'Database',
        roundTrips: 'statements/s',
        rollbacks: 'rollbacks/s',
        attempts: 'attempts per acknowledged change',
        lockHeld: 'row lock held per commit',
        batches: 'Batches',
        batchCount: 'committed',
        batchMean: 'changes in one, on average',
        batchLargest: 'the largest',
        batchQueued: 'queued for one, on average',
        batchWaiting: 'waiting now',
        cache: 'Cache of balances',
        cacheRatio: 'hit ratio',
        cacheHits: 'hits / misses / bypasses',
        cacheFailures: 'failures',
        cacheOwed: 'owed / forgotten',
        noCache: 'Balances are not answered from Redis here.',
        queue: 'Queue',
        queueLink: 'RabbitMQ',
        connected: '● connected',
        disconnected: '✕ not connected; the figures are the last known',
        queueReady: 'ready',
        queueRetrying: 'to be tried again',
        queueDead: 'dead letters',
        queueInHand: 'in hand here',
        notWorking: 'no worker here',
        queueOldest: 'oldest undecided',
        noQueue: 'This server has no queue (--amqp-url), or cannot ask it.',
        projection: 'Reports',
        lag: 'lag',
        behind: 'positions behind',
        entries: 'entries',
        generation: 'generation',
        rebuilding: (generation: bigint, entries: bigint) => `; ${generation} is being built: ${entries} entries`,
        noProjection: 'Another process keeps the reports up with the journal.',
        timeline: 'Timeline',
        retained: 'events kept',
        newest: 'newest event',
        epoch: 'epoch',
    },
    zh: {
        database: '数据库',
        roundTrips: '语句/秒',
        rollbacks: '回滚/秒',
        attempts: '每次确认的平均尝试次数',
        lockHeld: '每次提交持有行锁',
        batches: '批处理',
        batchCount: '已提交批次',
        batchMean: '平均每批变更数',
        batchLargest: '最大一批',
        batchQueued: '平均排队时间',
        batchWaiting: '正在等待',
        cache: '余额缓存',
        cacheRatio: '命中率',
        cacheHits: '命中 / 未命中 / 绕过',
        cacheFailures: '失败',
        cacheOwed: '待通知 / 已放弃',
        noCache: '此服务器不从 Redis 返回余额。',
        queue: '队列',
        queueLink: 'RabbitMQ',
        connected: '● 已连接',
        disconnected: '✕ 未连接；以下为最后已知数值',
        queueReady: '就绪',
        queueRetrying: '等待重试',
        queueDead: '死信',
        queueInHand: '本机处理中',
        notWorking: '本机不消费',
        queueOldest: '最早未决',
        noQueue: '此服务器没有队列（--amqp-url），或无法查询。',
        projection: '报表',
        lag: '延迟',
        behind: '落后位置数',
        entries: '条目',
        generation: '代次',
        rebuilding: (generation: bigint, entries: bigint) => `；正在构建第 ${generation} 代：${entries} 条`,
        noProjection: '报表由其他进程更新。',
        timeline: '时间线',
        retained: '保留的事件',
        newest: '最新事件',
        epoch: '纪元',
    },
});

export function Works({ moment }: { readonly moment: Moment }) {
    const { queue, cache, projection, batches, timeline } = moment.status;
    const said = text.value;
    return (
        <>
            <Facts name="database" title={said.database} rows={databaseRows(moment)} />
            {batches && <Facts name="batches" title={said.batches} rows={batchRows(batches)} />}
            {timeline && <Facts name="timeline" title={said.timeline} rows={timelineRows(timeline)} />}
            {projection && <Facts name="projection" title={said.projection} rows={reportRows(projection)} />}
            {cache && <Facts name="cache" title={said.cache} rows={cacheRows(cache)} />}
            {queue && <Facts name="queue" title={said.queue} rows={queueRows(queue)} />}
            {projection === undefined ? <p class="hint">{said.noProjection}</p> : null}
            {cache === undefined ? <p class="hint">{said.noCache}</p> : null}
            {queue === undefined ? <p class="hint" data-test="monitor-no-queue">{said.noQueue}</p> : null}
        </>
    );
}

type Rows = readonly (readonly [string, string])[];

function databaseRows({ rates, status: { work } }: Moment): Rows {
    const said = text.value;
    return [
        [said.roundTrips, rough(rates?.roundTrips)],
        [said.rollbacks, rough(rates?.rollbacks)],
        [said.attempts, rough(work && mean(Number(work.attempts), work.acknowledged))],
        [said.lockHeld, inMilliseconds(work?.locksHeld && mean(milliseconds(work.locksHeld), work.commits))],
    ];
}

function batchRows({ batches, changes, largest, queued, waiting }: BatchStatus): Rows {
    const said = text.value;
    return [
        [said.batchCount, batches.toString()],
        [said.batchMean, rough(mean(Number(changes), batches))],
        [said.batchLargest, largest.toString()],
        [said.batchQueued, inMilliseconds(queued && mean(milliseconds(queued), changes))],
        [said.batchWaiting, waiting.toString()],
    ];
}

function cacheRows({ hits, misses, bypasses, hitRatio, failures, owed, forgotten }: CacheStatus): Rows {
    const said = text.value;
    return [
        [said.cacheRatio, hits + misses + bypasses === 0n ? NONE : `${rough(hitRatio * 100)} %`],
        [said.cacheHits, `${hits} / ${misses} / ${bypasses}`],
        [said.cacheFailures, failures.toString()],
        [said.cacheOwed, `${owed} / ${forgotten}`],
    ];
}

function queueRows({ connected, ready, retrying, dead, working, inHand, oldest }: QueueStatus): Rows {
    const said = text.value;
    return [
        [said.queueLink, connected ? said.connected : said.disconnected],
        [said.queueReady, ready.toString()],
        [said.queueRetrying, retrying.toString()],
        [said.queueDead, dead.toString()],
        [said.queueInHand, working ? inHand.toString() : said.notWorking],
        [said.queueOldest, span(oldest)],
    ];
}

function reportRows(projection: ProjectionStatus): Rows {
    const said = text.value;
    const { generation, entries, behind, lag, buildingGeneration, buildingEntries } = projection;
    const rebuilding = buildingGeneration === 0n ? '' : said.rebuilding(buildingGeneration, buildingEntries);
    return [
        [said.lag, span(lag)],
        [said.behind, behind.toString()],
        [said.entries, entries.toString()],
        [said.generation, `${generation}${rebuilding}`],
    ];
}

function timelineRows({ retained, capacity, newestSequence, epoch }: TimelineStatus): Rows {
    const said = text.value;
    return [
        [said.retained, `${retained} / ${capacity}`],
        [said.newest, newestSequence.toString()],
        [said.epoch, epoch],
    ];
}

/** An average; null of nothing. */
function mean(sum: number, count: bigint): number | null {
    return count === 0n ? null : sum / Number(count);
}
