// One video, and several in step.
import { useCallback, useEffect, useRef, useState } from "preact/hooks";

import { whyNoVideo } from "./api";
import { Icon, ICONS } from "./parts";

/** Where a video shows a still until it plays: the very first frame is often black. */
const STILL = "#t=0.4";

export function Player({ src, label, aspect }: { src: string; label: string; aspect: number | null }) {
  const [trouble, setTrouble] = useState<string | null>(null);
  const [shape, setShape] = useState(aspect);
  if (trouble !== null) return <NoVideo why={trouble} />;
  return (
    <video
      class="player"
      controls
      playsInline
      loop
      preload="metadata"
      src={src + STILL}
      style={shape ? { aspectRatio: String(shape) } : {}}
      aria-label={label}
      onLoadedMetadata={(event) => {
        const { videoWidth, videoHeight } = event.currentTarget;
        if (videoHeight > 0) setShape(videoWidth / videoHeight);
      }}
      onError={() => void whyNoVideo(src).then(setTrouble)}
    />
  );
}

export function NoVideo({ why }: { why: string }) {
  return (
    <div class="no-video" role="status">
      <Icon path={ICONS.warn} size={22} />
      <p>The video cannot be played here.</p>
      <p class="faint">{why}</p>
    </div>
  );
}

const DRIFT = 0.12; // seconds between two videos that are still in step

export interface Ensemble {
  register: (index: number) => (video: HTMLVideoElement | null) => void;
  playing: boolean;
  position: number;
  length: number;
  toggle: () => void;
  seek: (to: number) => void;
}

/** Plays several videos as one: the first that can play sets the time, the others follow. */
export function useEnsemble(): Ensemble {
  const videos = useRef(new Map<number, HTMLVideoElement>());
  const [playing, setPlaying] = useState(false);
  const [position, setPosition] = useState(0);
  const [length, setLength] = useState(0);
  const all = useCallback(() => [...videos.current.values()].filter((each) => each.readyState > 0), []);

  const register = useCallback(
    (index: number) => (video: HTMLVideoElement | null) => {
      if (video) videos.current.set(index, video);
      else videos.current.delete(index);
    },
    [],
  );
  const seek = useCallback(
    (to: number) => {
      for (const video of all()) video.currentTime = Math.min(to, Math.max(0, video.duration - 0.05));
      setPosition(to);
    },
    [all],
  );
  const toggle = useCallback(() => {
    if (playing) {
      for (const video of all()) video.pause();
      setPlaying(false);
      return;
    }
    setPlaying(true);
    for (const video of all()) void video.play().catch(() => undefined);
  }, [all, playing]);

  useEffect(() => {
    const timer = window.setInterval(() => {
      const ready = all();
      const longest = ready.reduce((most, video) => Math.max(most, video.duration || 0), 0);
      setLength((known) => (known === longest ? known : longest));
      const lead = ready.find((video) => video.duration === longest);
      if (!playing || !lead) return;
      if (lead.ended) {
        for (const video of ready) video.currentTime = 0;
        for (const video of ready) void video.play().catch(() => undefined);
        return;
      }
      setPosition(lead.currentTime);
      for (const video of ready) {
        if (video === lead) continue;
        const wanted = Math.min(lead.currentTime, video.duration);
        if (Math.abs(video.currentTime - wanted) > DRIFT && !video.seeking) video.currentTime = wanted;
        if (video.paused && !video.ended) void video.play().catch(() => undefined);
      }
    }, 100);
    return () => window.clearInterval(timer);
  }, [all, playing]);

  return { register, playing, position, length, toggle, seek };
}

export function EnsembleControls({ ensemble, count }: { ensemble: Ensemble; count: number }) {
  const { playing, position, length } = ensemble;
  return (
    <div class="ensemble-controls">
      <button type="button" class="button" onClick={ensemble.toggle}>
        <Icon path={playing ? ICONS.pause : ICONS.play} />
        {playing ? "Pause" : `Play all ${count}`}
      </button>
      <input
        type="range"
        min={0}
        max={length || 1}
        step={0.01}
        value={position}
        disabled={!length}
        aria-label="Position in all videos"
        aria-valuetext={`${position.toFixed(1)} of ${length.toFixed(1)} seconds`}
        onInput={(event) => ensemble.seek(Number(event.currentTarget.value))}
      />
      <span class="mono faint">
        {position.toFixed(1)} / {length.toFixed(1)} s
      </span>
    </div>
  );
}

export function EnsembleVideo({ ensemble, index, src, label }: {
  ensemble: Ensemble;
  index: number;
  src: string;
  label: string;
}) {
  const [trouble, setTrouble] = useState<string | null>(null);
  if (trouble !== null) return <NoVideo why={trouble} />;
  return (
    <video
      class="player"
      ref={ensemble.register(index)}
      muted
      playsInline
      preload="auto"
      src={src + STILL}
      aria-label={label}
      onClick={ensemble.toggle}
      onError={() => void whyNoVideo(src).then(setTrouble)}
    />
  );
}

/** The still of a video, which plays while somebody points at it; nothing is loaded before it is in view. */
export function Preview({ src, playing, eager, failed }: {
  src: string;
  playing: boolean;
  eager: boolean;
  failed: () => void;
}) {
  const video = useRef<HTMLVideoElement>(null);
  const [near, setNear] = useState(false);
  useEffect(() => {
    const node = video.current;
    if (!node || !eager) return;
    const observer = new IntersectionObserver(
      (entries) => {
        if (entries.some((each) => each.isIntersecting)) setNear(true);
      },
      { rootMargin: "200px" },
    );
    observer.observe(node);
    return () => observer.disconnect();
  }, [eager]);
  useEffect(() => {
    const node = video.current;
    if (!node || !node.src) return;
    if (playing) void node.play().catch(() => undefined);
    else node.pause();
  }, [playing, near]);
  const wanted = near || playing;
  return (
    <video
      ref={video}
      muted
      loop
      playsInline
      preload={wanted ? "metadata" : "none"}
      {...(wanted ? { src: src + STILL } : {})}
      aria-hidden="true"
      tabIndex={-1}
      onError={failed}
    />
  );
}
