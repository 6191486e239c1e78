// Several videos side by side, in step.
import { useEffect, useRef } from "preact/hooks";

import type { Generation } from "./api";
import { seconds, shortModel, usd } from "./format";
import { nameOf } from "./generation";
import { Icon, ICONS } from "./parts";
import { EnsembleControls, EnsembleVideo, useEnsemble } from "./player";

export function CompareDialog({ generations, close }: { generations: Generation[]; close: () => void }) {
  const ensemble = useEnsemble();
  return (
    <Dialog title={`${generations.length} videos side by side`} close={close} wide>
      <EnsembleControls ensemble={ensemble} count={generations.length} />
      <div class="variants-box"><ul class="variants" data-count={generations.length}>
        {generations.map((each, index) => (
          <li key={each.generation_id ?? index} class="variant">
            <EnsembleVideo ensemble={ensemble} index={index} src={each.video_url ?? ""} label={`Video of ${nameOf(each)}`} />
            <div class="variant-text">
              <div class="variant-head">
                <h3>{nameOf(each)}</h3>
                {each.cost?.usd !== null && each.cost?.usd !== undefined && <span class="faint">{usd(each.cost.usd)}</span>}
              </div>
              <p class="prompt-line">{each.prompt}</p>
              <p class="faint">
                {shortModel(each.model)}
                {each.waited !== null && each.waited !== undefined ? ` · took ${seconds(each.waited)}` : ""}
              </p>
            </div>
          </li>
        ))}
      </ul></div>
    </Dialog>
  );
}

export function Dialog({ title, close, children, wide = false }: {
  title: string;
  close: () => void;
  children: preact.ComponentChildren;
  wide?: boolean;
}) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    dialog.current?.showModal();
  }, []);
  return (
    <dialog
      ref={dialog}
      class={wide ? "wide" : ""}
      aria-label={title}
      onClose={close}
      onClick={(event) => {
        if (event.target === dialog.current) close();
      }}
    >
      <div class="dialog-inner">
        <header class="dialog-head">
          <h2>{title}</h2>
          <button type="button" class="quiet" onClick={close} aria-label="Close">
            <Icon path={ICONS.close} size={18} />
          </button>
        </header>
        {children}
      </div>
    </dialog>
  );
}
