// Everything that is known of one generation.
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";

import { openInAirflow, taskHref } from "./airflow";
import type { Generation, Picture } from "./api";
import { bytes, moment, seconds, shortModel, usd } from "./format";
import { Copy, Icon, ICONS, isWaiting, StatusBadge, useNow } from "./parts";
import { Player } from "./player";

export function GenerationDetail({ generation, now, heading, link = false }: {
  generation: Generation;
  now: number;
  heading?: string;
  link?: boolean;
}) {
  const name = heading ?? nameOf(generation);
  return (
    <article class="generation" aria-label={name}>
      <div class="stage">
        <Stage generation={generation} now={now} label={`Video of ${name}`} />
        {generation.video_url && (
          <div class="stage-actions">
            <a class="button" href={`${generation.video_url}?download=true`} download>
              <Icon path={ICONS.download} /> Download
            </a>
            {link && (
              <a class="button" href={taskHref(generation)} onClick={openInAirflow}>
                <Icon path={ICONS.open} /> Open the task
              </a>
            )}
          </div>
        )}
        {!generation.video_url && link && (
          <div class="stage-actions">
            <a class="button" href={taskHref(generation)} onClick={openInAirflow}>
              <Icon path={ICONS.open} /> Open the task
            </a>
          </div>
        )}
        {generation.failure && <FailureText generation={generation} />}
      </div>
      <div class="about">
        <header class="about-head">
          <h2>{name}</h2>
          <StatusBadge status={generation.status} />
        </header>
        {generation.prompt && <blockquote class="prompt">{generation.prompt}</blockquote>}
        {generation.pictures.length > 0 && <Pictures pictures={generation.pictures} />}
        <Facts generation={generation} />
      </div>
    </article>
  );
}

export function nameOf(generation: Generation): string {
  const base = generation.label ?? (generation.map_index >= 0 ? `${generation.task_id} [${generation.map_index}]` : generation.task_id);
  return generation.place === null || generation.place === undefined ? base : `${base} · variant ${generation.place + 1}`;
}

function Stage({ generation, now, label }: { generation: Generation; now: number; label: string }) {
  if (generation.video_url) return <Player src={generation.video_url} label={label} aspect={aspectOf(generation)} />;
  if (isWaiting(generation.status)) return <Waiting generation={generation} serverNow={now} />;
  return (
    <div class={generation.failure ? "no-video short" : "no-video"}>
      <Icon path={generation.status === "failed" ? ICONS.warn : ICONS.film} size={26} />
      <p>{generation.status === "failed" ? "There is no video" : "Nobody has fetched the video yet"}</p>
      {generation.status === "submitted" && (
        <p class="faint">This task submitted the generation; no task of this run has waited for it.</p>
      )}
    </div>
  );
}

function aspectOf({ video }: Generation): number | null {
  return video?.width && video.height ? video.width / video.height : null;
}

export function Waiting({ generation, serverNow, small = false }: {
  generation: Generation;
  serverNow: number;
  small?: boolean;
}) {
  const now = useNow(serverNow, 500);
  const since = generation.submitted_at ?? generation.started_at ?? generation.queued_at ?? now;
  const elapsed = Math.max(0, now - since);
  const usual = generation.usual_seconds;
  const generating = generation.status === "generating";
  const late = generating && elapsed > usual * 1.5;
  // Never full before the video is there: past the usual time the line creeps.
  const share = generating ? Math.min(0.97, elapsed < usual ? (elapsed / usual) * 0.85 : 1 - 0.15 * (usual / elapsed)) : 0;
  const words: Record<string, string> = {
    queued: "Queued in Airflow",
    submitting: "Being submitted",
    generating: late ? "Generating, longer than usual" : "Generating",
    retrying: "Airflow will retry the task",
  };
  const word = words[generation.status] ?? "Waiting";
  return (
    <div class={small ? "waiting small" : "waiting"}>
      <p class="waiting-word">{word}</p>
      <div
        class={generating ? "progress" : "progress unknown"}
        role="progressbar"
        aria-label={word}
        aria-valuemin={0}
        aria-valuemax={100}
        {...(generating ? { "aria-valuenow": Math.round(share * 100) } : {})}
      >
        <span style={{ width: generating ? `${(share * 100).toFixed(1)}%` : "30%" }} />
      </div>
      <p class="faint">
        {generating ? `${seconds(elapsed)} of usually ${seconds(usual)}` : `for ${seconds(elapsed)}`}
      </p>
      {late && !small && (
        <p class="faint">
          The task keeps waiting until its timeout. Should that end it, the generation continues at the vendor: clear or retry the task, and it picks
          up the same one.
        </p>
      )}
    </div>
  );
}

export function FailureText({ generation }: { generation: Generation }) {
  const failure = generation.failure;
  if (!failure) return null;
  return (
    <section class="failure" aria-label="Why there is no video">
      <header>
        <p class="failure-name">{failureName(failure.kind)}</p>
        <Copy text={failure.message} what="the error" />
      </header>
      <p>{failure.message}</p>
    </section>
  );
}

export function failureName(kind: string): string {
  const words = kind.replace(/Error$/, "").replace(/([a-z])([A-Z])/g, "$1 $2").toLowerCase();
  if (words === "kling" || words === "") return "Failed";
  const whole = kind.endsWith("Error") && !/(failed|timeout|lost)$/.test(words) ? `${words} error` : words;
  return whole.charAt(0).toUpperCase() + whole.slice(1);
}

function Pictures({ pictures }: { pictures: Picture[] }) {
  return (
    <ul class="pictures" aria-label="Reference pictures">
      {pictures.map((picture) => (
        <ReferencePicture key={picture.parameter} picture={picture} />
      ))}
    </ul>
  );
}

function ReferencePicture({ picture }: { picture: Picture }) {
  const [gone, setGone] = useState(false);
  const shown = picture.url && !gone;
  return (
    <li>
      {shown ? (
        <img src={picture.url ?? ""} alt={`Reference picture, ${picture.parameter}`} loading="lazy" onError={() => setGone(true)} />
      ) : (
        <span class="picture-gone" title={gone ? "It cannot be read from here, or was changed since" : "At another host"}>
          <Icon path={ICONS.film} size={18} />
        </span>
      )}
      <span class="picture-text">
        <span>{picture.parameter}</span>
        <span class="faint path" title={picture.source}>
          {picture.source}
        </span>
        {!shown && <span class="faint">{gone ? "cannot be shown: gone or changed" : "not loaded from other hosts"}</span>}
      </span>
    </li>
  );
}

export function Fact({ name, children, wide = false }: { name: string; children: ComponentChildren; wide?: boolean }) {
  return (
    <div class={wide ? "fact wide" : "fact"}>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

export function Copyable({ text, what }: { text: string; what: string }) {
  return (
    <span class="copyable">
      <code title={text}>{text}</code>
      <Copy text={text} what={what} />
    </span>
  );
}

export function Facts({ generation: g }: { generation: Generation }) {
  const parameters = Object.entries(g.parameters);
  const source: Record<string, string> = {
    usage: "by the vendor's answer",
    ledger: "by the account's ledger",
    estimate: "estimated by the price list",
  };
  return (
    <>
      <dl class="facts">
        {g.model && <Fact name="Model"><span title={g.model}>{shortModel(g.model)}</span></Fact>}
        {g.cost && (
          <Fact name="Cost">
            {g.cost.usd !== null && g.cost.usd !== undefined && <strong>{usd(g.cost.usd)}</strong>}
            {g.cost.usd_source && <span class="faint">{` ${source[g.cost.usd_source] ?? ""}`}</span>}
            {g.cost.credits !== null && g.cost.credits !== undefined && <span class="faint line">{Math.round(g.cost.credits).toLocaleString("en-US")} credits</span>}
          </Fact>
        )}
        {g.video && (
          <Fact name="Video">
            {[
              g.video.width && g.video.height ? `${g.video.width} × ${g.video.height}` : null,
              g.video.duration ? `${g.video.duration.toFixed(2)} s` : null,
              g.video.size ? bytes(g.video.size) : null,
            ].filter(Boolean).join(" · ")}
          </Fact>
        )}
        {g.waited !== null && g.waited !== undefined && (
          <Fact name="Took">
            {seconds(g.waited)} <span class="faint line">usually {seconds(g.usual_seconds)}</span>
          </Fact>
        )}
        {g.submitted_at && <Fact name="Submitted">{moment(g.submitted_at)}</Fact>}
        {g.completed_at && <Fact name="Seen completed">{moment(g.completed_at)}</Fact>}
        {g.negative_prompt && <Fact name="Not in it">{g.negative_prompt}</Fact>}
        {parameters.map(([name, value]) => (
          <Fact key={name} name={name}>
            {typeof value === "object" && value !== null ? <code class="json">{JSON.stringify(value)}</code> : String(value)}
          </Fact>
        ))}
      </dl>
      <dl class="facts ids">
        {g.video && <Fact name="Saved at"><Copyable text={g.video.path} what="the path" /></Fact>}
        {g.generation_id && <Fact name="Generation id"><Copyable text={g.generation_id} what="the generation id" /></Fact>}
        {g.client_request_id && (
          <Fact name="Client request id"><Copyable text={g.client_request_id} what="the client request id" /></Fact>
        )}
        {g.video?.sha256 && <Fact name="SHA-256"><Copyable text={g.video.sha256} what="the checksum" /></Fact>}
      </dl>
    </>
  );
}
