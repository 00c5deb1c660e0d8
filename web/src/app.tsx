// The shell around the panels: where one is, whether the server answers, language, theme, token. It knows each panel by
// its row and nothing of what is in it.
import type { ComponentType } from 'preact';
import { useEffect } from 'preact/hooks';

import { linkTo, place } from './route';
import { ConnectionSign } from './connection';
import { Attack } from './panels/attack';
import { Duel } from './panels/duel';
import { History } from './panels/history';
import { Lanes } from './panels/lanes';
import { Monitor } from './panels/monitor';
import { TokenField } from './token';
import { switchTheme, theme } from './theme';
import { language, LANGUAGES, speak, words, type Language } from './words';

const text = words({
    en: {
        subtitle: 'watch money get lost, see why, and cure it',
        panels: { attack: 'Attack', lanes: 'Lanes', history: 'History', duel: 'Duel', monitor: 'Monitor' },
        navigation: 'Panels',
        light: 'Light',
        dark: 'Dark',
        language: 'Language',
        skip: 'Skip to the panel',
    },
    zh: {
        subtitle: '看钱怎样丢失，看清原因，再把它治好',
        panels: { attack: '攻击', lanes: '泳道', history: '历史', duel: '对决', monitor: '监控' },
        navigation: '面板',
        light: '浅色',
        dark: '深色',
        language: '语言',
        skip: '跳到面板',
    },
});

const PANELS = { attack: Attack, lanes: Lanes, history: History, duel: Duel, monitor: Monitor } as const satisfies Record<
    string,
    ComponentType
>;
type PanelName = keyof typeof PANELS;
const NAMES = Object.keys(PANELS) as PanelName[];

/** The panel that the address names, or the first. */
function panelName(): PanelName {
    return NAMES.find((name) => name === place.value.panel) ?? 'attack';
}

/** Moves the focus past the header. The address stays: it names the panel, and what is seen in it. */
function skip(event: Event): void {
    event.preventDefault();
    document.getElementById('panel')?.focus();
}

export function App() {
    const name = panelName();
    const title = text.value.panels[name];
    useEffect(() => {
        document.title = `${title} · Zero Balance Loss`;
    }, [title]);
    const Panel = PANELS[name];
    return (
        <>
            <a class="skip" href="#panel" onClick={skip}>{text.value.skip}</a>
            <header>
                <div class="brand">
                    <strong>Zero Balance Loss</strong>
                    <span>{text.value.subtitle}</span>
                </div>
                <nav aria-label={text.value.navigation}>
                    {NAMES.map((other) => (
                        <a key={other} href={linkTo(other)} aria-current={other === name ? 'page' : undefined}>
                            {text.value.panels[other]}
                        </a>
                    ))}
                </nav>
                <div class="settings">
                    <ConnectionSign />
                    <TokenField />
                    <LanguageChoice />
                    <button type="button" onClick={switchTheme}>
                        {theme.value === 'dark' ? text.value.light : text.value.dark}
                    </button>
                </div>
            </header>
            <main id="panel" tabIndex={-1}>
                <Panel />
            </main>
        </>
    );
}

function LanguageChoice() {
    return (
        <select
            aria-label={text.value.language}
            value={language.value}
            onChange={(event) => speak(event.currentTarget.value as Language)}
        >
            {Object.entries(LANGUAGES).map(([code, name]) => (
                <option key={code} value={code}>{name}</option>
            ))}
        </select>
    );
}
