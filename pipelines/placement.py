"""Applies a cluster's settings to the tasks of a pipeline."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from inspect import Parameter, Signature
from typing import Any

from kfp import dsl, kubernetes
from kfp.dsl import PipelineConfig, PipelineTask
from kfp.dsl.base_component import BaseComponent

from pipelines.cluster import PINNED, Cluster
from pipelines.pod_resources import Kind, Pod


class Placement:
    """Places each task of a pipeline; without a cluster (local runs), only the image is set.

    Args:
        image: image of the tasks.
        cluster: the cluster.
        caching: whether tasks may take outputs from Kubeflow's cache.
    """

    def __init__(self, image: str, cluster: Cluster | None = None, *, caching: bool = True) -> None:
        self.image, self.cluster, self.caching = image, cluster, caching
        # Stage by name in the pipeline; complete once a pipeline has been built.
        self.stages: dict[str, str] = {}
        self.pods: dict[str, Pod] = {}
        self.kinds: dict[str, Kind] = {}

    def pipeline(
        self, name: str, description: str, tasks: Callable[..., None], parameters: Mapping[str, tuple[Any, Any]]
    ) -> BaseComponent:
        """Returns the Kubeflow pipeline of tasks that this object places.

        Args:
            name: name of the pipeline.
            description: description in Kubeflow.
            tasks: function that creates the tasks, given the pipeline's parameters.
            parameters: type and default of each parameter, by name.
        """
        config, cluster = PipelineConfig(), self.cluster
        if cluster is not None:
            config = PipelineConfig(
                active_deadline_seconds=cluster.run_timeout_s, ttl_seconds_after_finished=cluster.keep_pods_s
            )

        def function(*arguments: Any) -> None:
            tasks(*arguments)

        function.__signature__ = Signature(  # type: ignore[attr-defined]
            [
                Parameter(key, Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=kind)
                for key, (kind, default) in parameters.items()
            ],
            return_annotation=None,
        )
        root = cluster and cluster.pipeline_root
        define = dsl.pipeline(name=name, description=description, pipeline_root=root, pipeline_config=config)
        # KFP reads the whole stack each time it sets something of a task. For a frame of no module, as notebooks
        # and `python -m` have, it looks through all modules. The stack of a thread is short.
        with ThreadPoolExecutor(1) as thread:
            built: BaseComponent = thread.submit(define, function).result()
        return built

    def io(self, task: PipelineTask) -> PipelineTask:
        """Places a task that transfers data."""
        return self._place(task, "io")

    def cpu(self, task: PipelineTask) -> PipelineTask:
        """Places a task that computes on CPUs."""
        return self._place(task, "cpu")

    def gpu(self, task: PipelineTask) -> PipelineTask:
        """Places a task that uses all GPUs of its pod."""
        return self._place(task, "gpu")

    def _place(self, task: PipelineTask, kind: Kind) -> PipelineTask:
        stage = task.component_spec.name.replace("-", "_")
        name = task.inputs.get("name", stage)
        self.stages[name], self.kinds[name] = stage, kind
        task.set_container_image(self.image).set_display_name(name.replace("_", " "))
        if self.cluster is not None:
            self.pods[name] = self.cluster.pod(name, stage, kind)
            _on_cluster(task, name, self.cluster, self.pods[name])
        if stage.startswith("register_") or not self.caching:
            task.set_caching_options(False)  # a cached task would register nothing
        return task


def _on_cluster(task: PipelineTask, name: str, cluster: Cluster, pod: Pod) -> None:
    task.set_caching_options(PINNED.search(cluster.image) is not None)  # a tag may later refer to another image
    task.set_cpu_request(pod.cpu).set_cpu_limit(pod.cpu)
    task.set_memory_request(pod.memory).set_memory_limit(pod.memory)
    if pod.retries:
        task.set_retry(pod.retries, backoff_duration="30s", backoff_factor=2, backoff_max_duration="600s")
    if pod.gpus:
        task.set_accelerator_type(pod.gpu_resource).set_accelerator_limit(pod.gpus)
    for label, value in pod.labels.items():
        kubernetes.add_node_selector(task, label, value)
    for label, value in {**cluster.labels, **cluster.queue_labels}.items():
        kubernetes.add_pod_label(task, label, value)
    for key, value in cluster.annotations.items():
        kubernetes.add_pod_annotation(task, key, value)
    for toleration in pod.tolerations:
        kubernetes.add_toleration(task, **toleration.model_dump())
    if pod.shared_memory:
        kubernetes.empty_dir_mount(
            task, "shared-memory", "/dev/shm", medium="Memory", size_limit=pod.shared_memory
        )
    variables = {"MASKCAST_IMAGE": cluster.image, **cluster.data_variables, **cluster.metadata_variables}
    variables |= cluster.scheduling_variables(pod)
    for variable, value in {**variables, **cluster.env}.items():
        task.set_env_variable(variable, value)
    kubernetes.use_field_path_as_env(task, "KFP_RUN_ID", "metadata.labels['pipeline/runid']")
    for secret, keys in cluster.secrets.items():
        kubernetes.use_secret_as_env(task, secret, {key: variable for variable, key in keys.items()})
    for path, files in cluster.files.items():
        if files.config_map:
            kubernetes.use_config_map_as_volume(task, files.config_map, path)
        else:
            kubernetes.use_secret_as_volume(task, files.secret, path)
    if cluster.workspace:
        kubernetes.mount_pvc(task, cluster.workspace.claim, cluster.workspace.mount_path)
        task.set_env_variable("MASKCAST_RESUME_DIR", f"{cluster.workspace.mount_path}/resume/{name}")
    kubernetes.set_image_pull_policy(task, cluster.image_pull_policy)
    if cluster.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(cluster.image_pull_secrets))
    kubernetes.set_security_context(task, run_as_non_root=True)
    kubernetes.set_timeout(task, pod.timeout_s)
