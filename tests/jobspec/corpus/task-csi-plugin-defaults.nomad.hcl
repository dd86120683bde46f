job "task-csi-plugin-defaults" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      csi_plugin {
        id   = "nfs"
        type = "monolith"
      }
    }
  }
}
