"""The stages of an export: find, plan, build, validate, describe, publish."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from export import names, sources
from export.architectures import GraphFiles, Plan, plan_export
from export.calibration import measure_columns
from export.checkpoint import Checkpoint
from export.errors import CheckpointError, ServingOptionError, UnservablePrecisionError, ValidationError
from export.graphs.builder import OPSET, save_model
from export.graphs.quantized import smooth_columns
from export.manifest import Manifest, find_instruction_template, fingerprint, list_files
from export.model_card import ModelCard, read_model_card
from export.progress import Progress, stage
from export.publish import Staging, disk_errors, recover, require_free_space
from export.repository import ModelFolders, list_replaced_models
from export.sample_texts import SAMPLE_TEXTS
from export.serving import ServedModel, ServingSpec
from export.sources import Source
from export.spec import BYTES_PER_PARAMETER, Identity, Precision, Task
from export.tokenizer import read_padded_length, survives_round_trip
from export.triton.steps import preprocessing_parameters
from export.validation import UNVERIFIED, Agreement, ScoreAgreement, find_loss, find_provider, require_agreement
from export.validation.golden import compute_golden

_OVERHEAD_BYTES = 64 << 20  # tokenizers, graphs, file system


@dataclass(frozen=True)
class ExportRequest:
    """The options of an export, as the command line describes them."""

    model: str
    repository: Path
    public_id: str | None = None
    task: Task | None = None
    precision: Precision = "fp32"
    serving: ServingSpec = field(default_factory=ServingSpec)
    revision: str | None = None
    license: str | None = None
    replace: bool = False


def export_model(request: ExportRequest, progress: Progress) -> str:
    """Export one checkpoint to a repository, and return its public id.

    Raises:
        ExportError: The export is refused; the repository is unchanged.
    """
    target = request.serving.target
    if request.precision == "int8" and target != "cpu":
        raise UnservablePrecisionError(
            f"int8 graphs run on the CPU only: choose --precision fp16 for --target {target}"
        )
    if recovered := recover(request.repository):
        progress.say(f"finished an interrupted export: {', '.join(recovered)}")
    public_id = names.check_public_id(request.public_id or sources.default_public_id(request.model))
    replaced = list_replaced_models(request.repository, public_id, replace=request.replace)
    source = sources.resolve(request.model, request.revision, progress)
    checkpoint = Checkpoint(source.folder)
    plan = plan_export(checkpoint, request.precision, target, request.task)
    _require_steps(request.serving, plan)
    card = read_model_card(checkpoint, request.license)
    with Staging(request.repository) as staging, disk_errors(request.repository):
        require_free_space(staging.folder, _needed_bytes(checkpoint, request.precision))
        folders = ModelFolders(staging.models, public_id)
        files = _build(plan, folders, request.precision, staging.folder, progress)
        agreement, golden = _validate(plan, files, request, progress)
        round_trip = plan.spec.task == "rank" or _check_round_trip(plan, progress)  # rerankers take no token ids
        folders.write_tokenizer(plan.tokenizer, plan.spec)
        folders.write_warmup(plan.spec)
        folders.write_profiles(plan.spec, request.serving)
        with progress.step("compute the checksums of the files"):
            manifest = _describe(request, source, checkpoint, card, plan, agreement, folders)
        folders.write_configs(_serve(manifest, golden, plan, request, round_trip))
        with progress.step(f"publish into {request.repository}"):
            staging.publish(names.model_names(public_id, plan.spec.modalities, plan.spec.task), replaced)
    return public_id


def _require_steps(serving: ServingSpec, plan: Plan) -> None:
    """Refuse options for steps that the model does not have."""
    ensembles = names.ENSEMBLES[plan.spec.task]
    steps = {step for modality in plan.spec.modalities for step in names.steps(ensembles[modality])}
    absent = serving.configured_steps - steps
    if absent and not plan.spec.image and absent <= {names.PREPROCESS_IMAGE, names.VISION_ENCODER}:
        raise ServingOptionError(f"the model takes no images, so it has no step {min(absent)} to set options of")
    if absent:
        raise ServingOptionError(f"the model has no step {min(absent)} (steps: {', '.join(sorted(steps))})")


def _needed_bytes(checkpoint: Checkpoint, precision: Precision) -> int:
    return checkpoint.weights.parameter_count * BYTES_PER_PARAMETER[precision] + _OVERHEAD_BYTES


def _build(plan: Plan, folders: ModelFolders, precision: Precision, work: Path, progress: Progress) -> GraphFiles:
    """Write the graphs and return their files."""
    largest = None
    if precision == "int8" and plan.embed_samples is not None:
        task = "measure the activations of sample inputs"
        with progress.step(task), stage(task, CheckpointError, passing=(OSError,)):
            largest = measure_columns(plan.graphs, plan.embed_samples, work)
    files = {}
    for step, build in plan.graphs.items():
        task = f"build the {step} in {precision}"
        with progress.step(task), stage(task, CheckpointError, passing=(OSError,)):
            model = build()
            if largest is not None:
                smooth_columns(model, largest)
            files[step] = save_model(model, folders.version(step))
    return files


def _validate(
    plan: Plan, files: GraphFiles, request: ExportRequest, progress: Progress
) -> tuple[Agreement | ScoreAgreement, str]:
    """Compare the graphs with the reference, and return the agreement and the golden embedding or score as JSON."""
    precision, target = request.precision, request.serving.target
    task = "validate against the reference"
    with progress.step(task), stage(task, ValidationError):
        agreement = plan.compare(files)
        require_agreement(agreement, precision)
        golden = compute_golden(plan.spec, plan.tokenizer, files[names.HEADS[plan.spec.task]], precision, target)
    progress.say(f"over {agreement.samples} samples: {agreement.describe()}")
    if loss := find_loss(agreement, precision):
        progress.say(loss)
    if find_provider(target) is None:
        progress.say(f"this machine has no device for the target {target}: its operators were computed by the CPU")
    return agreement, golden


def _check_round_trip(plan: Plan, progress: Progress) -> bool:
    """Return whether the server can tell the model's own token ids from others."""
    with stage("check the tokenizer", CheckpointError):
        survives = survives_round_trip(plan.tokenizer, SAMPLE_TEXTS)
    if not survives:
        progress.say(
            "the tokenizer does not turn the text of its token ids into the same ids again: the server cannot check"
            " the token ids of clients, and refuses them unless GATEWAY_TOKEN_IDS=any"
        )
    return survives


def _describe(
    request: ExportRequest,
    source: Source,
    checkpoint: Checkpoint,
    card: ModelCard,
    plan: Plan,
    agreement: Agreement | ScoreAgreement,
    folders: ModelFolders,
) -> Manifest:
    spec = plan.spec
    return Manifest(
        public_id=folders.public_id,
        source=source.origin,
        revision=source.revision,
        created=int(time.time()),
        task=spec.task,
        activation=spec.rank.activation if spec.rank else None,
        architecture=spec.architecture,
        precision=request.precision,
        target=request.serving.target,
        opset=OPSET,
        layout=plan.layout,
        dimensions=None if spec.rank else spec.dimensions,
        max_tokens=spec.max_tokens,
        pooling=spec.pooling,
        query_prefix=spec.query_prefix,
        passage_prefix=spec.passage_prefix,
        prompts=plan.prompts,
        instruction_template=find_instruction_template(spec.query_prefix),
        modalities=spec.modalities,
        license=card.license,
        license_text=card.license_text,
        description=card.description,
        fingerprint=fingerprint(checkpoint.weights.paths, request.precision, spec, plan.tokenizer),
        preprocessing=preprocessing_parameters(spec),
        validation=asdict(agreement) | {"device": find_provider(request.serving.target) or UNVERIFIED},
        files=list_files(folders.root),
    )


def _serve(
    manifest: Manifest, golden: str, plan: Plan, request: ExportRequest, token_ids_round_trip: bool
) -> ServedModel:
    identity = Identity(
        public_id=manifest.public_id,
        precision=request.precision,
        license=manifest.license,
        fingerprint=manifest.fingerprint,
        manifest=manifest.to_json(),
        golden=golden,
    )
    return ServedModel(identity, plan.spec, request.serving, token_ids_round_trip, read_padded_length(plan.tokenizer))
