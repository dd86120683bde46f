job "task-csi-plugin" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      csi_plugin {
        id                     = "ebs"
        type                   = "node"
        mount_dir              = "/csi-dir"
        stage_publish_base_dir = "/local/stage"
        health_timeout         = "1m"
      }
    }
  }
}
