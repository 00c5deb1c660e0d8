// The page's languages. Each panel brings its own words, in every language, and the compiler sees that none is missing.
import { computed, effect, signal, type ReadonlySignal } from '@preact/signals';

/** The languages, by their codes. */
export const LANGUAGES = { en: 'English', zh: '中文' } as const;
export type Language = keyof typeof LANGUAGES;

const KEPT_AS = 'zbl.language';

/** The chosen language: the one that was chosen before, or the browser's. */
export const language = signal<Language>(chosen());

function chosen(): Language {
    const kept = localStorage.getItem(KEPT_AS);
    if (kept === 'en' || kept === 'zh') {
        return kept;
    }
    return navigator.languages.some((name) => name.toLowerCase().startsWith('zh')) ? 'zh' : 'en';
}

/** Chooses a language, for the next time too. */
export function speak(next: Language): void {
    localStorage.setItem(KEPT_AS, next);
    language.value = next;
}

effect(() => {
    document.documentElement.lang = language.value;
});

/** Texts in all languages; read `.value` of what it returns where they are shown. */
export function words<T>(texts: Record<Language, T>): ReadonlySignal<T> {
    return computed(() => texts[language.value]);
}
