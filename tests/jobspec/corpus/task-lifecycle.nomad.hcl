job "task-lifecycle" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      lifecycle {
        hook    = "prestart"
        sidecar = true
      }
    }
  }
}
