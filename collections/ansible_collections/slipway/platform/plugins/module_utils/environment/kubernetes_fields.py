"""Fields of the kubelet's configuration (k8s.io/kubelet/config/v1beta1 of 1.36) and arguments of etcd, with types."""

from __future__ import annotations

KUBELET_FIELDS: dict[str, str] = {
    "bool": """
        enableServer rotateCertificates serverTLSBootstrap authentication.webhook.enabled
        authentication.anonymous.enabled enableDebuggingHandlers enableContentionProfiling cgroupsPerQOS
        singleProcessOOMKill runOnce cpuCFSQuota serializeImagePulls mergeDefaultEvictionSettings
        enableControllerAttachDetach protectKernelDefaults makeIPTablesUtilChains failSwapOn kernelMemcgNotification
        enableSystemLogHandler enableSystemLogQuery enableProfilingHandler enableDebugFlagsHandler seccompDefault
        registerNode localStorageCapacityIsolation failCgroupV1
    """,
    "text": """
        staticPodPath podLogsDir staticPodURL address tlsCertFile tlsPrivateKeyFile tlsMinVersion
        authentication.x509.clientCAFile authorization.mode imagePullCredentialsVerificationPolicy
        healthzBindAddress clusterDomain kubeletCgroups systemCgroups cgroupRoot cgroupDriver cpuManagerPolicy
        memoryManagerPolicy topologyManagerPolicy topologyManagerScope hairpinMode podCIDR resolvConf contentType
        memorySwap.swapBehavior containerLogMaxSize configMapAndSecretChangeDetectionStrategy reservedSystemCPUs
        showHiddenMetricsForVersion systemReservedCgroup kubeReservedCgroup volumePluginDir providerID
        memoryReservationPolicy containerRuntimeEndpoint imageServiceEndpoint
    """,
    "duration": """
        syncFrequency fileCheckFrequency httpCheckFrequency authentication.webhook.cacheTTL
        authorization.webhook.cacheAuthorizedTTL authorization.webhook.cacheUnauthorizedTTL
        streamingConnectionIdleTimeout nodeStatusUpdateFrequency nodeStatusReportFrequency imageMinimumGCAge
        imageMaximumGCAge volumeStatsAggPeriod cpuManagerReconcilePeriod runtimeRequestTimeout cpuCFSQuotaPeriod
        evictionPressureTransitionPeriod containerLogMonitorInterval shutdownGracePeriod
        shutdownGracePeriodCriticalPods crashLoopBackOff.maxContainerRestartPeriod
    """,
    "lists": """
        staticPodURLHeader
    """,
    "int": """
        port readOnlyPort registryPullQPS registryBurst eventRecordQPS eventBurst healthzPort oomScoreAdj
        nodeLeaseDurationSeconds imageGCHighThresholdPercent imageGCLowThresholdPercent maxPods podPidsLimit
        nodeStatusMaxImages maxOpenFiles kubeAPIQPS kubeAPIBurst maxParallelImagePulls evictionMaxPodGracePeriod
        podsPerCore iptablesMasqueradeBit iptablesDropBit containerLogMaxFiles containerLogMaxWorkers
        userNamespaces.idsPerPod
    """,
    "list": """
        tlsCipherSuites preloadedImagesVerificationAllowlist clusterDNS enforceNodeAllocatable allowedUnsafeSysctls
    """,
    "ints": """
        tlsCurvePreferences
    """,
    "mapping": """
        authentication authentication.x509 authentication.webhook authentication.anonymous authorization
        authorization.webhook memorySwap logging crashLoopBackOff tracing userNamespaces
    """,
    "texts": """
        cpuManagerPolicyOptions topologyManagerPolicyOptions qosReserved evictionHard evictionSoft
        evictionSoftGracePeriod evictionMinimumReclaim systemReserved kubeReserved
    """,
    "switches": """
        featureGates
    """,
    "entries": """
        shutdownGracePeriodByPodPriority reservedMemory registerWithTaints
    """,
    "number": """
        memoryThrottlingFactor
    """,
}
"""Type → fields, those of a nested object with its name before a dot."""

ETCD_ARGUMENTS: dict[str, str] = {
    "int": """
        auth-token-ttl backend-batch-limit bcrypt-cost bootstrap-defrag-threshold-megabytes compaction-batch-limit
        distributed-tracing-sampling-rate election-timeout heartbeat-interval max-concurrent-streams max-learners
        max-request-bytes max-snapshots max-txn-ops max-wals quota-backend-bytes self-signed-cert-validity
        snapshot-catchup-entries snapshot-count
    """,
    "duration": """
        backend-batch-interval compact-hash-check-time compaction-sleep-interval corrupt-check-time
        downgrade-check-time grpc-keepalive-interval grpc-keepalive-min-time grpc-keepalive-timeout
        raft-read-timeout raft-write-timeout warning-apply-duration warning-unary-request-duration
        watch-progress-notify-interval
    """,
    "bool": """
        enable-distributed-tracing enable-grpc-gateway enable-log-rotation enable-pprof
        initial-election-tick-advance memory-mlock pre-vote socket-reuse-address socket-reuse-port
        strict-reconfig-check
    """,
    "text": """
        auto-compaction-mode auto-compaction-retention backend-bbolt-freelist-type cipher-suites
        distributed-tracing-address distributed-tracing-instance-id distributed-tracing-service-name feature-gates
        host-whitelist log-format log-level log-outputs log-rotation-config-json logger metrics tls-max-version
        tls-min-version
    """,
}
"""Type → arguments of etcd 3.6 that tune it; RKE2 sets those of members, addresses, files and certificates."""
