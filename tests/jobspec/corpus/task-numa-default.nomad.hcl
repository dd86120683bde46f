job "task-numa-default" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      resources {
        cores = 4
        numa {}
      }
    }
  }
}
