job "lang-dynamic-templates" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      dynamic "template" {
        for_each = { one = "1", two = "2" }
        content {
          data        = template.value
          destination = "local/${template.key}"
        }
      }
      dynamic "env" {
        for_each = ["x"]
        content {
          NAME = env.value
        }
      }
    }
  }
}
